"""Comparison of the outputs of an exported file with those of the module."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from secateur.data.batch import Batch
from secateur.errors import TraceError
from secateur.graph.model_calls import call_model
from secateur.graph.program import Program
from secateur.surgery.verify import output_difference
from secateur.utils.devices import comparable_arithmetic

OTHER_KERNELS = 10
"""The factor by which outputs of other kernels may differ more than those of the same."""


def tensors_in(output: Any) -> list[Tensor]:
    """Return the tensors of an output, on the processor."""
    return [leaf.cpu() for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


@comparable_arithmetic()
def compared_outputs(
    model: nn.Module, program: Program, batch: Batch, run: Callable[[Batch], list[Tensor]], runtime: str
) -> dict[str, Any]:
    """Compare the outputs of a file with the model's, for the example and for a batch of another size.

    Raises:
        TraceError: the file can't be run, or computes something else.
    """
    batches = [batch]
    if program.batched is not None and batch.is_divisible and batch.size:
        batches.append(batch.take(torch.tensor([*range(batch.size), 0])))
    worst = math.nan if program.draws else 0.0
    for batch in batches:
        try:
            outputs = run(batch)
            difference, tolerance = output_difference(
                outputs, tensors_in(call_model(model, batch)), program.lowest_type
            )
        except Exception as failure:  # runtimes have their own types
            message = str(failure).strip().splitlines()[0][:300]
            raise TraceError(
                f"{runtime} can't run {type(model).__name__} for a batch of {batch.size} ({type(failure).__name__}: "
                f"{message}); nothing is written"
            ) from failure
        if not program.draws and not difference <= OTHER_KERNELS * tolerance:
            raise TraceError(
                f"{runtime} computes another output than {type(model).__name__}: it differs by {difference:.1e} of the "
                f"largest output for a batch of {batch.size}, where {OTHER_KERNELS * tolerance:.0e} is float noise; "
                "nothing is written"
            )
        worst = max(worst, difference) if not program.draws else worst
    return {"difference": worst, "batch_sizes": tuple(batch.size or 1 for batch in batches)}
