"""How far the cut network is from the dense one, and on which examples that is judged."""

from collections.abc import Sequence

import torch
from torch import Tensor

from secateur.data.batch import Batch

BLOCKS = 8
HELD_OUT = (3, 7)


def holdout_mask(count: int, seen: int, total: int) -> Tensor:
    """Which of the next examples, after so many of all, are held out of a fit, (count,).

    Two of eight blocks of neighbours: what lies side by side, crops of one photo or frames of one clip, is often alike,
    and would tell too well of each other.
    """
    block = (torch.arange(count) + seen) * BLOCKS // total
    return torch.isin(block, torch.tensor(HELD_OUT)) if total >= BLOCKS else (torch.arange(count) + seen) % 4 == 3


def split_holdout(cells: Sequence[Batch], splits: bool) -> tuple[list[Batch], list[Batch]]:
    """A quarter of the examples held out of the others; all serve for both where there are fewer than four.

    Args:
        cells: the examples.
        splits: whether a cell can be taken apart; where the batch size is fixed it can't.
    """
    total = sum(cell.size or 1 for cell in cells)
    fitted: list[Batch] = []
    held: list[Batch] = []
    seen = 0
    for number, cell in enumerate(cells):
        size = cell.size or 1
        is_held = holdout_mask(size, seen, total)
        seen += size
        if not splits or not cell.is_divisible:
            (held if number % 4 == 3 or (number, len(cells)) in ((1, 2), (2, 3)) else fitted).append(cell)
            continue
        fitted += [cell.take(torch.nonzero(~is_held).flatten())] if not bool(is_held.all()) else []
        held += [cell.take(torch.nonzero(is_held).flatten())] if bool(is_held.any()) else []
    return (fitted or held), (held or fitted)


def output_spread(cells: Sequence[Batch], examples: int) -> list[Batch]:
    """Cells from all over, of about so many examples together, at least one."""
    total = sum(cell.size or 1 for cell in cells)
    if total <= examples:
        return list(cells)
    count = max(1, min(len(cells), round(len(cells) * examples / total)))
    return [cells[int((at + 0.5) * len(cells) / count)] for at in range(count)]


def improves(before: Tensor, after: Tensor, in_doubt: bool) -> bool:
    """Whether examples held out say that a step helped.

    Args:
        before, after: their divergences (examples,).
        in_doubt: whether it may be worse by as much as the standard error of the difference: a few dozen examples, of
            which two or three make most of the divergence, often say the contrary of what thousands would.
    """
    change = after - before
    doubt = float(change.std()) / len(change) ** 0.5 if in_doubt and len(change) > 1 else 0.0
    return float(change.mean()) < doubt
