"""The examination of a definition by torch-pruning: random importance, with the output layer excluded by hand."""

from typing import Any

import torch
import torch_pruning as tp
from torch import nn
from torch.utils import _pytree as pytree

from wild.definitions import SEED, Definition, build_definition

RATIO = 0.25


def examine_by_peer(definition: Definition) -> dict[str, Any]:
    """Return the outcome: works, wrong shape, untouched or crash; a hang is seen by the calling process."""
    torch.manual_seed(SEED)
    model, example = build_definition(definition)
    before = sum(parameter.numel() for parameter in model.parameters())
    with torch.no_grad():
        expected = _shapes(_forward(model, example))
    try:
        _prune(model, example, _output_layer(model, expected))
        with torch.no_grad():
            shapes = _shapes(_forward(model, example))
    except Exception as failure:  # noqa: BLE001 (a benchmark reports whatever happens)
        return {"outcome": "crash", "error": f"{type(failure).__name__}: {failure}"[:200]}
    kept_share = sum(parameter.numel() for parameter in model.parameters()) / before
    if shapes != expected:
        return {"outcome": "wrong shape", "left": kept_share}
    return {"outcome": "untouched" if kept_share > 0.999 else "works", "left": kept_share}


def _output_layer(model: nn.Module, output_shapes: list[tuple[int, ...]]) -> list[nn.Module]:
    """Return the last layer as wide as an output, in a list that is empty where there is none."""
    widths = {width for shape in output_shapes if len(shape) > 1 for width in (shape[1], shape[-1])}
    layers = [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        and (module.out_features if isinstance(module, nn.Linear) else module.out_channels) in widths
    ]
    return layers[-1:]


def _prune(model: nn.Module, example: Any, ignored: list[nn.Module]) -> None:
    pruner = tp.pruner.MagnitudePruner(
        model,
        example if isinstance(example, dict) else (example,),
        importance=tp.importance.RandomImportance(),
        pruning_ratio=RATIO,
        ignored_layers=ignored,
        forward_fn=_forward,
        output_transform=_first_sum,
    )
    pruner.step()


def _forward(model: nn.Module, example: Any) -> Any:
    if isinstance(example, dict):
        return model(**example)
    return model(*example) if isinstance(example, tuple) else model(example)


def _tensors(output: Any) -> list[torch.Tensor]:
    leaves = pytree.tree_leaves(dict(output) if hasattr(output, "items") else output)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()]


def _shapes(output: Any) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in _tensors(output)]


def _first_sum(output: Any) -> torch.Tensor:
    return torch.stack([tensor.sum() for tensor in _tensors(output)]).sum()
