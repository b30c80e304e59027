"""The dynamic axes of a model's inputs."""

import inspect
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from secateur.data.batch import Batch

Axes = Sequence[Collection[int]]


def dynamic_shapes(model: nn.Module, batch: Batch, axes: Axes = ()) -> Any:
    """Return `Dim.AUTO` for the batch axis of every tensor, the length of integer inputs, and the given axes."""
    further = iter(axes)

    def dims(leaf: Any) -> Any:
        varying_axes = next(further, ())
        if not isinstance(leaf, Tensor) or leaf.dim() == 0:
            return None
        dynamic = {0, 1} if not leaf.is_floating_point() and leaf.dim() == 2 else {0}
        return {dim: Dim.AUTO if leaf.shape[dim] > 1 else None for dim in sorted(dynamic | set(varying_axes))}

    args, kwargs = pytree.tree_map(dims, (tuple(batch.args), dict(batch.kwargs)))
    return _by_parameter(inspect.signature(model.forward), args, kwargs)


def _by_parameter(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Map values to the parameters of a signature; `*args` and `**kwargs` keep their own names."""
    bound: dict[str, Any] = {}
    positional, keywords = list(args), dict(kwargs)
    for name, parameter in signature.parameters.items():
        if parameter.kind == inspect.Parameter.VAR_POSITIONAL:
            bound |= {name: tuple(positional)} if positional else {}
            positional = []
        elif parameter.kind == inspect.Parameter.VAR_KEYWORD:
            bound |= {name: keywords} if keywords else {}
        elif name in keywords:
            bound[name] = keywords.pop(name)
        elif positional:
            bound[name] = positional.pop(0)
    return bound


def _batch_symbol(exported: ExportedProgram, batch: Batch) -> str | None:
    """Return the symbol of the batch size.

    None where no first axis varies, or where that of the input which tells the number of examples is fixed: the nodes
    of a graph are not examples of which any number would do, even if the rows of its adjacency matrix are.
    """
    size = batch.size
    for node in exported.graph.nodes:
        value = node.meta.get("val")
        if node.op == "placeholder" and node.name in exported.graph_signature.user_inputs:
            dim = value.shape[0] if isinstance(value, Tensor) and value.dim() else None
            if not isinstance(dim, torch.SymInt) or dim.node.expr.is_number:
                if dim is not None and int(dim) == size:
                    return None
                continue
            if size is None or dim.node.hint in (size, None):
                return str(dim.node.expr)
    return None
