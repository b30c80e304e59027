"""Examples held out to judge by, and the judgement whether a step helped."""

import bisect
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from secateur.data.batch import Batch

BLOCKS = 8
HELD_OUT = (3, 7)
FEWEST_BLOCKS = 4


def holdout_mask(count: int, earlier: int, total: int) -> Tensor:
    """Select the examples that are held out of a fit, (count,).

    They are two of eight blocks of neighbours: crops of one photo or frames of one clip are often alike, so that one
    would predict the other too well.

    Args:
        count: the number of examples to select from.
        earlier: the number of examples before these.
        total: the number of all examples.
    """
    block = (torch.arange(count) + earlier) * BLOCKS // total
    return torch.isin(block, torch.tensor(HELD_OUT)) if total >= BLOCKS else (torch.arange(count) + earlier) % 4 == 3


def split_holdout(microbatches: Sequence[Batch], splits: bool) -> tuple[list[Batch], list[Batch]]:
    """Split the examples into three quarters to fit to and one held out; where there are fewer than four, all are both.

    Args:
        microbatches: the examples.
        splits: whether a microbatch can be divided; where the batch size is fixed it can't.
    """
    total = sum(microbatch.size or 1 for microbatch in microbatches)
    fitted: list[Batch] = []
    held_out: list[Batch] = []
    earlier = 0
    for number, microbatch in enumerate(microbatches):
        size = microbatch.size or 1
        is_held = holdout_mask(size, earlier, total)
        earlier += size
        if not splits or not microbatch.is_divisible:
            (held_out if number % 4 == 3 or (number, len(microbatches)) in ((1, 2), (2, 3)) else fitted).append(
                microbatch
            )
            continue
        fitted += [microbatch.take(torch.nonzero(~is_held).flatten())] if not bool(is_held.all()) else []
        held_out += [microbatch.take(torch.nonzero(is_held).flatten())] if bool(is_held.any()) else []
    return (fitted or held_out), (held_out or fitted)


def split_halves(microbatches: Sequence[Batch]) -> tuple[list[Batch], list[Batch]] | None:
    """Split the examples into two halves of alternating blocks of neighbours; None where they can't be divided.

    Args:
        microbatches: the examples, each microbatch a block where there are at least four.
    """
    if len(microbatches) >= FEWEST_BLOCKS:
        return list(microbatches[::2]), list(microbatches[1::2])
    total = sum(microbatch.size or 1 for microbatch in microbatches)
    if total < FEWEST_BLOCKS or not all(microbatch.is_divisible for microbatch in microbatches):
        return None
    halves: tuple[list[Batch], list[Batch]] = [], []
    earlier, blocks = 0, min(BLOCKS, total)
    for microbatch in microbatches:
        size = microbatch.size or 1
        is_second = (torch.arange(size) + earlier) * blocks // total % 2 == 1
        for half, members in zip(halves, (~is_second, is_second), strict=True):
            half += [microbatch.take(torch.nonzero(members).flatten())] if bool(members.any()) else []
        earlier += size
    return halves


def spread_microbatches(microbatches: Sequence[Batch], examples: int) -> list[Batch]:
    """Return microbatches from all over, of about so many examples together, at least one."""
    sizes = [microbatch.size or 1 for microbatch in microbatches]
    ends = list(itertools.accumulate(sizes))
    if ends[-1] <= examples:
        return list(microbatches)
    count = max(1, round(examples / max(sizes)))  # the last one may be a small rest
    indices = dict.fromkeys(bisect.bisect_right(ends, (at + 0.5) * ends[-1] / count) for at in range(count))
    return [microbatches[number] for number in indices]


def improves(before: Tensor, after: Tensor, allowance: float) -> bool:
    """Return True if a step helped, by examples held out.

    Args:
        before: their divergences before the step. (examples,)
        after: the same after it. (examples,)
        allowance: by how many standard errors of the difference the step may be worse. One where nothing of the step
            was chosen by these examples: a few dozen, of which two or three make most of the divergence, often say the
            contrary of what thousands would. Minus one, a gain beyond doubt, where they chose what is compared.
    """
    change = after - before
    error = float(change.std()) / len(change) ** 0.5 if len(change) > 1 else 0.0
    return float(change.mean()) < allowance * error
