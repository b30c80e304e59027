"""torch-pruning on one definition, as its documentation says: random importance, the output layer excluded by hand."""

from typing import Any

import torch
import torch_pruning as tp
from torch import nn
from torch.utils import _pytree as pytree

from wild.definitions import Definition
from wild.ours import SEED, build

RATIO = 0.25


def examine(definition: Definition) -> dict[str, Any]:
    """How it ends: works, wrong shape, untouched or crash; a hang is seen from outside."""
    torch.manual_seed(SEED)
    model, example = build(definition)
    inputs = example if isinstance(example, dict) else (example,)
    before = sum(parameter.numel() for parameter in model.parameters())
    with torch.no_grad():
        expected = _shapes(_run(model, example))
    classes = {shape[-1] for shape in expected if len(shape) > 1} | {shape[1] for shape in expected if len(shape) > 1}
    outputs = [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
        and (module.out_features if isinstance(module, nn.Linear) else module.out_channels) in classes
    ]
    try:
        pruner = tp.pruner.MagnitudePruner(
            model,
            inputs,
            importance=tp.importance.RandomImportance(),
            pruning_ratio=RATIO,
            ignored_layers=outputs[-1:],
            forward_fn=_run,
            output_transform=_first_sum,
        )
        pruner.step()
        with torch.no_grad():
            found = _shapes(_run(model, example))
    except Exception as failure:  # noqa: BLE001 (a benchmark reports whatever happens)
        return {"outcome": "crash", "error": f"{type(failure).__name__}: {failure}"[:200]}
    left = sum(parameter.numel() for parameter in model.parameters()) / before
    if found != expected:
        return {"outcome": "wrong shape", "left": left}
    return {"outcome": "untouched" if left > 0.999 else "works", "left": left}


def _run(model: nn.Module, example: Any) -> Any:
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
