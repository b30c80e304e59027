"""The numbers of blocks to leave out that are tried, and the exchanges of one block for another."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import product

from secateur.allocation.build_sequence import remaining_blocks
from secateur.allocation.remaining_fractions import fractions, fractions_of
from secateur.coupling.network import Network
from secateur.coupling.plan import Budget

COARSE = (0, 0.125, 0.25, 0.375, 0.5, 0.75, 1)
NEAR = 2  # places of the order from its end, within which blocks are exchanged


def sufficient_count(network: Network, order: Sequence[str], keep: Budget) -> int:
    """Return the fewest blocks that meet a budget while all other units stay; all blocks if none do.

    Leaving out more of them would lose what the budget does not ask for.

    Args:
        network: the network, with blocks as units.
        order: the paths of the blocks, in the order in which they are left out.
        keep: the budget, without times.
    """
    limits = fractions_of(network, keep)

    def meets_budget(count: int) -> bool:
        kept = remaining_blocks(network, order[:count])
        remaining = fractions(network, kept, network.cost(kept), list(limits), None)
        return all(remaining[unit] <= limit for unit, limit in limits.items())

    return min(1 + bisect_left(range(1, len(order)), True, key=meets_budget), len(order))


def coarse_counts(blocks: int) -> list[int]:
    """Return the numbers of blocks that are left out at first, from none to all."""
    return sorted({round(blocks * share) for share in COARSE})


def doubled_counts(blocks: int) -> list[int]:
    """Return the numbers of blocks that are left out where each is tried only if the one before gains.

    Args:
        blocks: how many there are.

    Examples:
        >>> doubled_counts(11)
        [1, 2, 4, 8, 11]
    """
    return [*(2**power for power in range((blocks - 1).bit_length())), blocks] if blocks else []


def middle_counts(counts: Sequence[int], best: int) -> list[int]:
    """Return the numbers of blocks half-way from the best one so far to its neighbours."""
    index = counts.index(best)
    neighbours = (*counts[max(index - 1, 0) : index], *counts[index + 1 : index + 2])
    middles = [(best + other) // 2 for other in neighbours]
    return [count for count in middles if count not in counts]


def exchanged_places(count: int, blocks: int) -> Iterator[tuple[int, int]]:
    """Yield pairs of places in the order: of a block to leave out, and of one to take back; near ones first.

    Args:
        count: how many are left out, from the order's beginning.
        blocks: how many there are.

    Examples:
        >>> list(exchanged_places(2, 4))
        [(2, 1), (2, 0), (3, 1)]
    """
    present, absent = range(count, min(count + NEAR, blocks)), range(max(count - NEAR, 0), count)
    pairs = sorted(product(present, absent), key=lambda pair: (pair[0] - pair[1], pair[0]))
    yield from (pair for pair in pairs if pair[0] - pair[1] <= NEAR)
