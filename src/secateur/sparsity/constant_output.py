"""A check that a network's output still depends on its input."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from secateur.coupling.network import Network
from secateur.data.batch import Batch


@torch.no_grad()
def output_varies(network: Network) -> bool:
    """Return whether the outputs for the traced example and for zeros in its place differ.

    Args:
        network: the network, with its present weights.
    """
    program, example = network.program, network.example
    return not _same(program.forward(example), program.forward(_without_content(example)))


def _without_content(example: Batch) -> Batch:
    """Return the example with zeros for all real numbers; where there are none, for all numbers."""
    is_real = any(tensor.is_floating_point() or tensor.is_complex() for tensor in example.tensors)

    def zeroed(tensor: Tensor) -> Tensor:
        is_content = tensor.is_floating_point() or tensor.is_complex() or not is_real
        return torch.zeros_like(tensor) if is_content else tensor

    args, kwargs = pytree.tree_map_only(Tensor, zeroed, (example.args, dict(example.kwargs)))
    return replace(example, args=args, kwargs=kwargs)


def _same(output: object, other: object) -> bool:
    pairs = zip(pytree.tree_leaves(output), pytree.tree_leaves(other), strict=True)
    tensors = [(a, b) for a, b in pairs if isinstance(a, Tensor) and isinstance(b, Tensor)]
    return all(a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in tensors)
