"""In what order units go, and what is left after some of them went: the sizes of the groups for a budget."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from secateur.allocation.exchange import exchange_units
from secateur.allocation.loss_curves import Curves, check_curves, curves_of
from secateur.allocation.quantities import quantity_text
from secateur.allocation.remaining_fractions import counted_fractions, fractions
from secateur.allocation.score_checks import check_scores
from secateur.allocation.strategies import LOSSES, ORDERS, OrderContext, between
from secateur.coupling.network import Group, Kept, Network
from secateur.coupling.plan import Budget
from secateur.coupling.prefix_cost import PrefixCost
from secateur.coupling.residual_blocks import blocks_of, groups_inside
from secateur.errors import BudgetError
from secateur.evaluation.channel_steps import preferred_multiple, sizes_in_steps
from secateur.evaluation.latency_table import LatencyTable
from secateur.importance.scores import Scores
from secateur.options import check_name, check_option


@dataclass(frozen=True, eq=False)
class RemovalSequence:
    """An order in which units go, and what is left after a number of them went.

    Args:
        network: the network.
        groups: the groups that may lose units.
        ranked: for each of them its units in ascending order of their scores.
        order: for each step the number (in `groups`) of the group that loses its next unit.
        sizes: for each group the sizes that it may have, ascending.
        folds: whether biases are added for the means of removed units.
        latency: the times of this machine, where the budget is in latency.
        curves: what the loss grows by, for each group, where sizes are exchanged between groups by it.
        base: what stays of other groups, by name: of blocks that are units beside others.
        fills: whether what still fits the budget is given back at the end; without it smaller plans lie within larger.
    """

    network: Network
    groups: tuple[Group, ...]
    ranked: tuple[Tensor, ...]
    order: np.ndarray
    sizes: tuple[np.ndarray, ...]
    folds: bool
    latency: LatencyTable | None = None
    curves: tuple[np.ndarray, ...] | None = None
    base: Kept = field(default_factory=dict)
    fills: bool = False

    @staticmethod
    def of(
        network: Network,
        scores: Scores,
        allocation: str | Sequence[str],
        round_to: int,
        floor: float,
        units: Sequence[str] = (),
        curves: Curves | None = None,
        latency: LatencyTable | None = None,
        step: int = 1,
        dropped: Sequence[str] = (),
    ) -> "RemovalSequence":
        check_option("round_to", round_to)
        check_option("floor", floor)
        names = [allocation] if isinstance(allocation, str) else list(allocation)
        for name in names:
            check_name(name, ORDERS, f"allocation={name!r} is unknown", shows=False)
            if name == "loss" and curves is None and scores.by not in LOSSES:
                raise BudgetError(
                    f"allocation='loss' needs to know what the loss grows by, which scores by {scores.by!r} "
                    "don't tell; give curves=, or rank by 'obs'"
                )
        base, gone = _remaining_blocks(network, dropped), {group.name for group in groups_inside(network, dropped)}
        groups = tuple(group for group in network.groups if group.name in scores and group.name not in gone)
        check_scores(network, groups, scores)
        if curves is not None:
            check_curves(curves, {group.name: group.size for group in groups})
        values = [scores[group.name].values.double() for group in groups]
        ranked = tuple(torch.argsort(value, stable=True) for value in values)
        multiples = [math.lcm(int(round_to), preferred_multiple(group, step)) for group in groups]
        sizes = tuple(sizes_in_steps(group, each, floor) for group, each in zip(groups, multiples, strict=True))
        known = curves_of(scores) if curves is None else curves
        asked = OrderContext(units, known, latency, sizes if step > 1 else None, step, base)
        orders = [ORDERS[name](network, groups, values, asked) for name in names]
        order = orders[0] if len(orders) == 1 else between(orders)
        own = tuple(known[group.name].numpy() for group in groups) if names == ["loss"] and step > 1 else None
        return RemovalSequence(network, groups, ranked, order, sizes, bool(scores.means), latency, own, base, step > 1)

    def kept(self, steps: int) -> dict[str, Tensor]:
        """What stays after a number of steps."""
        gone = np.bincount(self.order[:steps], minlength=len(self.groups))
        return self._kept_of(
            [
                int(sizes[np.searchsorted(sizes, group.size - lost)])
                for group, sizes, lost in zip(self.groups, self.sizes, gone.tolist(), strict=True)
            ]
        )

    def _kept_of(self, counts: Sequence[int]) -> dict[str, Tensor]:
        chosen = {
            group.name: ranked[group.size - count :].sort().values
            for group, ranked, count in zip(self.groups, self.ranked, counts, strict=True)
        }
        return {**chosen, **self.base}

    def left(self, steps: int, units: Sequence[str]) -> dict[str, float]:
        """The fraction of the dense network that is left after a number of steps, in each of these units."""
        return self._left_of(self.kept(steps), units)

    def _left_of(self, kept: Kept, units: Sequence[str]) -> dict[str, float]:
        return fractions(self.network, kept, self.network.cost(kept, self.folds), units, self.latency)

    def first_within(self, budget: Budget) -> int:
        """The fewest steps after which every budget is met."""
        least = self.left(len(self.order), list(budget))
        missed = {unit: least[unit] for unit, limit in budget.items() if least[unit] > limit}
        if missed:
            raise BudgetError(
                f"keep={dict(budget)} can't be met: the smallest reachable is "
                + ", ".join(f"{unit} {math.ceil(value * 1e4) / 1e4:g}" for unit, value in missed.items())
                + self._in_numbers(list(missed))
                + f" with {len(self.groups)} of {len(self.network.groups)} groups, floor and round_to as given; ask "
                "for more, lower the floor, or see what is frozen with print(network)"
            )
        low, high = 0, len(self.order)
        while low < high:
            middle = (low + high) // 2
            if self._meets(middle, budget):
                high = middle
            else:
                low = middle + 1
        return low

    def within(self, budget: Budget) -> dict[str, Tensor]:
        """What stays when every budget is met: after the fewest steps, and with what still fits given back.

        Where units go several at once, the last ones may have saved more than was needed.
        """
        gone = np.bincount(self.order[: self.first_within(budget)], minlength=len(self.groups))
        places = [
            int(np.searchsorted(sizes, group.size - lost))
            for group, sizes, lost in zip(self.groups, self.sizes, gone.tolist(), strict=True)
        ]
        places = self._filled(places, budget) if self.fills else places
        if self.curves is not None:
            places = exchange_units(places, self.sizes, self.curves, lambda other: self._fits(other, budget))
        return self._kept_at(places)

    def _filled(self, places: Sequence[int], budget: Budget) -> list[int]:
        """The places of sizes with what still fits the budget given back, to those first that lost units last."""
        last_first = list(dict.fromkeys(self.order[::-1].tolist()))
        filled = list(places)
        while any(map(self._is_coarse, last_first)):
            larger = ([at + (n == number) for n, at in enumerate(filled)] for number in last_first)
            fitting = next((other for other in larger if self._fits(other, budget)), None)
            if fitting is None:
                break
            filled = fitting
        return filled

    def _is_coarse(self, number: int) -> bool:
        """Whether units of a group go several at once."""
        return len(self.sizes[number]) < self.groups[number].size - int(self.sizes[number][0]) + 1

    def _fits(self, places: Sequence[int], budget: Budget) -> bool:
        """Whether there are such sizes, and every budget is met with them."""
        if any(at >= len(sizes) for at, sizes in zip(places, self.sizes, strict=True)):
            return False
        counts = np.array([int(sizes[at]) for at, sizes in zip(places, self.sizes, strict=True)])
        total = sum(group.size for group in self.groups)
        gone = sum(self.network[name].size - len(indices) for name, indices in self.base.items())
        quick = counted_fractions(self.network, self._costs.cost(counts), gone + total - int(counts.sum()))
        if any(quick[unit] > limit for unit, limit in budget.items() if unit in quick):
            return False
        left = self._left_of(self._kept_at(places), list(budget))
        return all(left[unit] <= limit for unit, limit in budget.items())

    @cached_property
    def _costs(self) -> PrefixCost:
        return PrefixCost(self.network, self.groups, mask=self.network.mask(self.base))

    def _kept_at(self, places: Sequence[int]) -> dict[str, Tensor]:
        return self._kept_of([int(sizes[at]) for sizes, at in zip(self.sizes, places, strict=True)])

    def _in_numbers(self, units: Sequence[str]) -> str:
        """The least that can be reached in these units, in absolute numbers, where they are counted."""
        least = self.network.cost(self.kept(len(self.order)), self.folds)
        numbers = [quantity_text(unit, getattr(least, unit)) for unit in units if unit in ("params", "macs", "bytes")]
        return f" ({', '.join(numbers)})" if numbers else ""

    def _meets(self, steps: int, budget: Budget) -> bool:
        left = self.left(steps, list(budget))
        return all(left[unit] <= limit for unit, limit in budget.items())


def _remaining_blocks(network: Network, dropped: Sequence[str]) -> dict[str, Tensor]:
    """The blocks that stay, by the name of their group.

    Raises:
        NameMatchError: what is to be dropped is none of the network's blocks.
    """
    if not dropped:
        return {}
    group = blocks_of(network)
    places = () if group is None else group.places
    for path in dropped:
        check_name(path, places, "dropped names no block that can be left out beside other units:")
    assert group is not None
    return {group.name: torch.tensor([at for at, path in enumerate(places) if path not in dropped], dtype=torch.long)}
