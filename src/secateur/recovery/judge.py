"""How far the cut network is from the dense one, and on which examples that is judged."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from secateur.data import Batch
from secateur.importance.losses import divergence
from secateur.network.program import preserved, run_module

HELD_OUT = 4


def held_out(count: int, seen: int) -> Tensor:
    """Which of the next examples, after so many, are held out of a fit: every fourth. (count,)"""
    return (torch.arange(count) + seen) % HELD_OUT == HELD_OUT - 1


def apart(cells: Sequence[Batch]) -> tuple[list[Batch], list[Batch]]:
    """Every fourth example held out of the others; all serve for both where there are fewer than four."""
    fitted: list[Batch] = []
    held: list[Batch] = []
    seen = 0
    for cell in cells:
        size = cell.size or 1
        is_held = held_out(size, seen)
        seen += size
        if any(tensor.dim() == 0 or tensor.shape[0] != size for tensor in cell.tensors):  # it can't be taken apart
            (held if bool(is_held.any()) else fitted).append(cell)
            continue
        fitted += [cell.take(torch.nonzero(~is_held).flatten())] if not bool(is_held.all()) else []
        held += [cell.take(torch.nonzero(is_held).flatten())] if bool(is_held.any()) else []
    return (fitted or held), (held or fitted)


def distance(small: nn.Module, dense: nn.Module, cells: Sequence[Batch]) -> float:
    """The mean divergence of the outputs over examples."""
    found = []
    with preserved(small), preserved(dense):
        for cell in cells:
            found.append(divergence(run_module(small, cell), run_module(dense, cell)).double())
    return float(torch.cat(found).mean())
