"""A search over the blocks that are left out, where blocks are units beside others."""

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import islice

from secateur.allocation.block_notes import with_block_note
from secateur.allocation.block_order import BlockOrder
from secateur.allocation.block_trials import (
    coarse_counts,
    doubled_counts,
    exchanged_places,
    middle_counts,
    sufficient_count,
)
from secateur.allocation.candidate_plans import EXCHANGE, Candidate, is_preferred
from secateur.allocation.candidates import CURVES, FEWEST_MEASURED, MEASURED
from secateur.allocation.compared_examples import compared_examples
from secateur.allocation.plan_sizes import Allocation
from secateur.allocation.remaining_fractions import fractions
from secateur.allocation.search import SIMULATIONS, PlanSearch
from secateur.coupling.network import Kept
from secateur.coupling.plan import Budget
from secateur.coupling.residual_blocks import blocks_of
from secateur.errors import BudgetError
from secateur.utils.distributed import is_shared, process_count

WORSE = 2
REFINED = 2


def best_plan(search: PlanSearch, keep: Budget) -> Candidate:
    """Return the plan that comes nearest to the dense network when it is simulated.

    Where blocks are units beside others, plans with all of them are compared with plans without some.

    Args:
        search: makes the plans.
        keep: the budget.

    Raises:
        BudgetError: the budget can't be met.
    """
    if blocks_of(search.simulator.network) is None or search.config.dropped:
        return search.best_of_allocations(keep)
    return _BlockSearch(search, keep).best()


class _BlockSearch:
    """Plans that meet a budget, by the blocks that they leave out."""

    def __init__(self, search: PlanSearch, keep: Budget) -> None:
        self._search, self._keep = search, keep
        self._order = self._block_order()
        self._by_dropped: dict[tuple[str, ...], Candidate] = {}

    def best(self) -> Candidate:
        """Return the best plan with some blocks left out, or none, and units removed for the rest of the budget."""
        refusal: BudgetError | None = None
        try:
            whole_candidate = self._search.best_of_allocations(self._keep)
            if self._search.latency is None and self._is_time_up():
                self._search.config.time.leave_out("plans without some blocks")
                return whole_candidate
            self._by_dropped[()] = (
                whole_candidate if whole_candidate.losses is not None else self._search.simulate(whole_candidate)
            )
            allocation = whole_candidate.allocation
        except BudgetError as failure:
            refusal, allocation = failure, self._fallback_allocation()
        if refusal is None and self._search.latency is None:
            self._leave_out_while_better(self._by_dropped[()])
        else:
            self._search_blocks(allocation)
        if not self._by_dropped:
            assert refusal is not None
            raise refusal
        return with_block_note(self._best, self._by_dropped.values(), self._power)

    def _search_blocks(self, allocation: Allocation) -> None:
        """Try numbers of blocks, then other allocations and other blocks for the best number."""
        self._search_counts(allocation)
        if self._by_dropped:
            self._try_other_allocations()
            self._exchange_blocks()

    def _leave_out_while_better(self, whole_candidate: Candidate) -> None:
        """Leave out blocks with sizes that fill kernels, and with sizes of the kind that the plan with all blocks has.

        A plan of another kind than the one with all blocks may be worse without a block, and better without several.
        """
        whole_target = whole_candidate.allocation.target
        filling_target = self._search.config.filled_target if self._search.prefers_filling else whole_target
        for target in dict.fromkeys((filling_target, whole_target)):
            price = whole_candidate.price(self._power) if target == whole_target else math.inf
            self._double_blocks(whole_candidate.allocation._replace(target=target), price)

    def _double_blocks(self, allocation: Allocation, price_before: float) -> None:
        """Leave out twice as many blocks, of those that lose least by themselves, as long as the plan gets better."""
        order = self._order.by_single_price
        counts = doubled_counts(self._most_blocks(order))
        for number, count in enumerate(counts):
            self._measure_ahead((order[:next_count] for next_count in counts[number:]), allocation)
            draft = None if self._is_time_up() else self._plan(allocation._replace(dropped=order[:count]))
            if draft is None:
                return
            candidate = self._search.simulate(draft)
            self._keep_better(candidate)
            if candidate.price(self._power) >= price_before:
                return
            price_before = candidate.price(self._power)

    @property
    def _power(self) -> float:
        """The power of the speed-up by which a loss may increase; 0 where no device is planned for.

        It is 0 for a budget in time, too, because all of its plans are equally fast.
        """
        return EXCHANGE if self._search.latency is None and self._search.prefers_filling else 0.0

    @property
    def _nearest(self) -> Candidate:
        """The plan with the lowest price: its divergence, weighed by its speed."""
        return min(self._by_dropped.values(), key=lambda candidate: candidate.price(self._power))

    @property
    def _best(self) -> Candidate:
        """The nearest plan; where the budget is not in time, blocks are left out only if that is preferred."""
        nearest, whole = self._nearest, self._by_dropped.get(())
        if whole is None or self._search.latency is not None or is_preferred(nearest, whole, self._power):
            return nearest
        return whole

    def _block_order(self) -> BlockOrder:
        search, network, units = self._search, self._search.simulator.network, list(self._keep)

        def remaining(kept: Kept) -> float:
            return sum(fractions(network, kept, network.cost(kept), units, search.latency).values())

        examples = compared_examples(network, FEWEST_MEASURED if search.latency is None else MEASURED)
        time, quick = search.config.time, search.simulator.quick_held_out(examples)
        return BlockOrder(quick, remaining, set(search.scores), lambda: time.is_spent(CURVES))

    def _most_blocks(self, order: Sequence[str]) -> int:
        """Return how many blocks of an order may be left out: as many as meet the budget, in time all of them.

        The time of a plan is not known before it is measured.
        """
        is_timed = self._search.latency is not None
        return len(order) if is_timed else sufficient_count(self._search.simulator.network, order, self._keep)

    def _fallback_allocation(self) -> Allocation:
        """Return the allocation to try where no plan with all blocks meets the budget: by the best curves."""
        allocations = self._search.allocations
        by_loss = [allocation for allocation in allocations if allocation.names == ("loss",) and not allocation.whole]
        return (by_loss or [*allocations])[-1]

    def _is_time_up(self) -> bool:
        return self._search.config.time.is_spent(SIMULATIONS)

    def _search_counts(self, allocation: Allocation) -> None:
        """Try numbers of blocks until two in turn are worse than one before, then those beside the best one."""
        worse_in_turn = 0
        most_blocks = self._most_blocks(self._order.paths)
        counts = sorted({min(count, most_blocks) for count in coarse_counts(len(self._order.paths))})
        for number, count in enumerate(counts):
            self._measure_ahead((self._order.paths[:next_count] for next_count in counts[number:]), allocation)
            self._try_without(self._order.paths[:count], allocation)
            is_worse = bool(self._by_dropped) and len(self._nearest.allocation.dropped) < count
            worse_in_turn = worse_in_turn + 1 if is_worse else 0
            if worse_in_turn == WORSE:
                break
        for _ in range(REFINED if self._by_dropped else 0):
            best_count = len(self._nearest.allocation.dropped)
            middles = middle_counts(sorted(map(len, self._by_dropped)), best_count)
            self._measure_ahead((self._order.paths[:count] for count in middles), allocation)
            for count in middles:
                self._try_without(self._order.paths[:count], allocation)

    def _try_other_allocations(self) -> None:
        """Try the other allocations with the blocks that the best plan leaves out."""
        dropped = self._nearest.allocation.dropped
        if not dropped:  # all of them were compared
            return
        counts = {self._nearest.counts}
        for allocation in self._search.allocations:
            candidate = self._plan(allocation._replace(dropped=dropped, target=self._nearest.allocation.target))
            if candidate is None or candidate.counts in counts or self._is_time_up():
                continue
            counts.add(candidate.counts)
            self._keep_better(self._search.simulate(candidate))

    def _exchange_blocks(self) -> None:
        """Exchange blocks near the end of the order, one for another, as long as the plan comes nearer."""
        pairs = list(exchanged_places(len(self._nearest.allocation.dropped), len(self._order.paths)))
        for number, pair in enumerate(pairs):
            self._measure_ahead(filter(None, map(self._exchange_in_dropped, pairs[number:])), self._nearest.allocation)
            dropped = self._exchange_in_dropped(pair)
            if dropped is not None:
                self._try_without(dropped, self._nearest.allocation)

    def _exchange_in_dropped(self, pair: tuple[int, int]) -> tuple[str, ...] | None:
        """Return the blocks of the best plan with one exchanged for another; None where that is not possible."""
        dropped = self._nearest.allocation.dropped
        path_to_drop, path_to_keep = (self._order.paths[index] for index in pair)
        if path_to_drop in dropped or path_to_keep not in dropped:
            return None
        new_dropped = {path_to_drop, *dropped} - {path_to_keep}
        return tuple(path for path in self._order.paths if path in new_dropped)

    def _measure_ahead(self, choices: Iterable[tuple[str, ...]], allocation: Allocation) -> None:
        """Measure plans with these blocks left out that are tried next, where processes share the work."""
        if not is_shared():
            return
        new_choices = (dropped for dropped in choices if dropped not in self._by_dropped)
        candidates = [
            self._plan(allocation._replace(dropped=dropped)) for dropped in islice(new_choices, process_count())
        ]
        self._search.quick.measure_ahead(candidate.plan.kept for candidate in candidates if candidate is not None)

    def _try_without(self, dropped: tuple[str, ...], allocation: Allocation) -> None:
        """Simulate a plan with these blocks left out, if it meets the budget and was not tried before."""
        if dropped in self._by_dropped or self._is_time_up():
            return
        candidate = self._plan(allocation._replace(dropped=dropped))
        if candidate is not None:
            self._keep_better(self._search.simulate(candidate))

    def _plan(self, allocation: Allocation) -> Candidate | None:
        """Return the plan by an allocation; None where it does not meet the budget.

        For a budget in time, sizes fill the device's kernels where such sizes meet it: others take as long as the next
        that fill. With all blocks they may not have met it.
        """
        is_timed = self._search.latency is not None
        preferred_target = self._search.config.filled_target if is_timed else allocation.target
        for target in dict.fromkeys((preferred_target, allocation.target)):
            choice = allocation._replace(target=target)
            with suppress(BudgetError):
                return Candidate(self._search.plan(self._keep, choice), choice)
        return None

    def _keep_better(self, candidate: Candidate) -> None:
        """Keep a plan, unless a better one with the same blocks is known."""
        dropped = candidate.allocation.dropped
        known_candidate = self._by_dropped.get(dropped)
        if known_candidate is None or candidate.price(self._power) < known_candidate.price(self._power):
            self._by_dropped[dropped] = candidate
