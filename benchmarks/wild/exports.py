"""Times of exports: the one that tracing needs, and the plain one."""

import time
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from secateur.data.batch import Batch
from secateur.data.conversion import example_batches
from secateur.graph.contexts import evaluation_mode
from secateur.graph.dynamic_shapes import dynamic_shapes
from secateur.graph.model_calls import plain_forward
from wild.definitions import Definition, build_definition

Row = dict[str, Any]


def export_times(definition: Definition) -> Row:
    """Return the seconds of the export that tracing needs and of the plain one, or the reason why both fail.

    The first is the faster of two runs; the plain one comes last, when torch knows the model's operators. Each has a
    fresh model, because an export may write into its attributes. Decoders are exported without their caches, which
    torch cannot export.
    """
    for cache_off in (False, True):
        try:
            batched = min(_batched_export_seconds(*build_definition(definition), cache_off) for _ in range(2))
            plain = export_seconds(*build_definition(definition), cache_off=cache_off)
            return {"batched_s": batched, "export_s": plain, **({"cache_off": True} if cache_off else {})}
        except Exception as failure:  # noqa: BLE001 (torch.export raises any type)
            reason = f"{type(failure).__name__}: {failure}"[:300]
    return {"not_exported": reason}


def example_batch(example: Any) -> Batch:
    """Return the batch of an example."""
    return example_batches(example, torch.device("cpu"))[0]


def export_seconds(model: nn.Module, example: Any, shapes: Any = None, cache_off: bool = False) -> float:
    """Return the processor seconds of an export.

    Args:
        model: the model.
        example: its inputs.
        shapes: the dynamic shapes of the export.
        cache_off: export without caches.
    """
    batch = example_batch(example)
    start = time.process_time()
    with evaluation_mode(model), plain_forward(model, batch) if cache_off else nullcontext():
        torch.export.export(model, batch.args, dict(batch.kwargs), dynamic_shapes=shapes, strict=False)
    return time.process_time() - start


def _batched_export_seconds(model: nn.Module, example: Any, cache_off: bool) -> float:
    """Return the seconds of the export with a variable batch size, or with a fixed one where the model needs it."""
    try:
        return export_seconds(model, example, dynamic_shapes(model, example_batch(example)), cache_off)
    except Exception:  # noqa: BLE001 (torch.export raises any type)
        return export_seconds(model, example, cache_off=cache_off)
