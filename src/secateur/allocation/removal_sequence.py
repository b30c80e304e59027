"""A sequence of removals, and the sizes of the groups by which it meets a budget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from torch import Tensor

from secateur.allocation.exchange import exchange_units
from secateur.allocation.quantities import quantity_text
from secateur.allocation.remaining_fractions import counted_fractions, fractions, removed_units
from secateur.allocation.strategies import OrderContext
from secateur.allocation.unmet_budgets import UnmetBudgetError
from secateur.coupling.network import Kept
from secateur.coupling.plan import Budget
from secateur.coupling.prefix_cost import PrefixCost
from secateur.utils.plurals import number_of


@dataclass(frozen=True, eq=False)
class RemovalSequence:
    """An order in which units are removed, and what is kept after a number of steps.

    Args:
        context: the groups that may lose units, and their sizes.
        rankings: for each group its units in ascending order of their scores. (units of the group,)
        order: for each step the number of the group that loses its next unit. (units,)
        folds: whether biases are added for the means of removed units.
        exchanges: whether sizes are exchanged between groups by their curves.
        fills: whether what still fits the budget is given back in units of tied groups, which save much at once.
    """

    context: OrderContext
    rankings: tuple[Tensor, ...]
    order: np.ndarray
    folds: bool = False
    exchanges: bool = False
    fills: bool = False

    def kept(self, steps: int) -> dict[str, Tensor]:
        """Return the units that are kept after a number of steps, by group."""
        return self._kept_of([int(sizes[index]) for sizes, index in self._sizes_at(self._size_indices(steps))])

    def remaining(self, steps: int, units: Sequence[str]) -> dict[str, float]:
        """Return the fraction of the dense network that is kept after a number of steps, in each of these units."""
        return self._fractions_of(self.kept(steps), units)

    def fewest_steps_within(self, budget: Budget) -> int:
        """Return the fewest steps after which every budget is met.

        Raises:
            UnmetBudgetError: it can't be met.
        """
        self._check_reachable(budget)
        low, high = 0, len(self.order)
        while low < high:
            middle = (low + high) // 2
            if _meets_budget(self.remaining(middle, list(budget)), budget):
                high = middle
            else:
                low = middle + 1
        return low

    def kept_within(self, budget: Budget) -> dict[str, Tensor]:
        """Return the units that are kept when every budget is met: after the fewest steps.

        Where units are removed several at once, the last ones may have saved more than was needed: what still fits is
        given back. Without that, smaller plans lie within larger ones.

        Raises:
            UnmetBudgetError: it can't be met.
        """
        steps = self.fewest_steps_within(budget)
        indices = self._size_indices(steps)
        if self.context.step > 1:
            indices = self._fill_budget(indices, budget)
        if self.fills:
            last_first = list(dict.fromkeys(self.order[:steps][::-1].tolist()))
            indices = self._fill_group_by_group(indices, last_first, budget)
        if self.exchanges:
            curves = [self.context.curves[group.name].numpy() for group in self.context.groups]
            indices = exchange_units(indices, self.context.sizes, curves, lambda trial: self._fits(trial, budget))
        return self._kept_of([int(sizes[index]) for sizes, index in self._sizes_at(indices)])

    def _check_reachable(self, budget: Budget) -> None:
        smallest = self.remaining(len(self.order), list(budget))
        missed_limits = {unit: smallest[unit] for unit, limit in budget.items() if smallest[unit] > limit}
        if missed_limits:
            groups = f"{len(self.context.groups)} of {number_of(len(self.context.network.groups), 'group')}"
            raise UnmetBudgetError.of(budget, missed_limits, self._in_numbers(list(missed_limits)), groups)

    def _in_numbers(self, units: Sequence[str]) -> str:
        """Return the least that can be reached in these units, in absolute numbers, where they are counted."""
        smallest_cost = self.context.network.cost(self.kept(len(self.order)), self.folds)
        numbers = [
            quantity_text(unit, getattr(smallest_cost, unit)) for unit in units if unit in ("params", "macs", "bytes")
        ]
        return f" ({', '.join(numbers)})" if numbers else ""

    def _size_indices(self, steps: int) -> list[int]:
        """Return for each group the index of its size after a number of steps."""
        removal_counts = np.bincount(self.order[:steps], minlength=len(self.context.groups))
        triples = zip(self.context.groups, self.context.sizes, removal_counts.tolist(), strict=True)
        return [int(np.searchsorted(sizes, group.size - count)) for group, sizes, count in triples]

    def _sizes_at(self, indices: Sequence[int]) -> "zip[tuple[np.ndarray, int]]":
        return zip(self.context.sizes, indices, strict=True)

    def _kept_of(self, counts: Sequence[int]) -> dict[str, Tensor]:
        kept = {
            group.name: ranking[group.size - count :].sort().values
            for group, ranking, count in zip(self.context.groups, self.rankings, counts, strict=True)
        }
        return {**kept, **self.context.base}

    def _fractions_of(self, kept: Kept, units: Sequence[str]) -> dict[str, float]:
        network = self.context.network
        return fractions(network, kept, network.cost(kept, self.folds), units, self.context.latency)

    def _fill_budget(self, indices: Sequence[int], budget: Budget) -> list[int]:
        """Give back what still fits the budget, to those groups first that lost units last."""
        last_first = list(dict.fromkeys(self.order[::-1].tolist()))
        larger_indices = list(indices)
        while any(map(self._is_coarse, last_first)):
            larger = ([index + (n == number) for n, index in enumerate(larger_indices)] for number in last_first)
            fitting = next((trial for trial in larger if self._fits(trial, budget)), None)
            if fitting is None:
                break
            larger_indices = fitting
        return larger_indices

    def _fill_group_by_group(self, indices: Sequence[int], order: Sequence[int], budget: Budget) -> list[int]:
        """Give back as many units as fit the budget, to one group after another in an order of their numbers."""
        larger_indices = list(indices)
        for number in order:
            fitting, largest = larger_indices[number], len(self.context.sizes[number]) - 1
            while fitting < largest:
                middle = (fitting + largest + 1) // 2
                if self._fits([*larger_indices[:number], middle, *larger_indices[number + 1 :]], budget):
                    fitting = middle
                else:
                    largest = middle - 1
            larger_indices[number] = fitting
        return larger_indices

    def _is_coarse(self, number: int) -> bool:
        """Return whether units of a group are removed several at once."""
        sizes, group = self.context.sizes[number], self.context.groups[number]
        return len(sizes) < group.size - int(sizes[0]) + 1

    def _fits(self, indices: Sequence[int], budget: Budget) -> bool:
        """Return whether there are such sizes, and every budget is met with them."""
        if any(index >= len(sizes) for sizes, index in self._sizes_at(indices)):
            return False
        counts = [int(sizes[index]) for sizes, index in self._sizes_at(indices)]
        network = self.context.network
        removal_count = sum(group.size for group in self.context.groups) - sum(counts)
        removal_count += self._removed_beside
        kept_fractions = counted_fractions(network, self._costs.cost(np.array(counts)), removal_count)
        if not _meets_budget({unit: value for unit, value in kept_fractions.items() if unit in budget}, budget):
            return False
        return _meets_budget(self._fractions_of(self._kept_of(counts), list(budget)), budget)

    @cached_property
    def _removed_beside(self) -> int:
        return removed_units(self.context.network, self.context.base)

    @cached_property
    def _costs(self) -> PrefixCost:
        network = self.context.network
        return PrefixCost(network, self.context.groups, mask=network.mask(self.context.base))


def _meets_budget(remaining: Mapping[str, float], budget: Budget) -> bool:
    return all(value <= budget[unit] for unit, value in remaining.items())
