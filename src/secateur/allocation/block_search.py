"""A search over the number of blocks that are left out, where blocks are units beside others."""

from collections.abc import Sequence

from secateur.allocation.block_order import order_of_blocks
from secateur.allocation.candidate_plans import Candidate
from secateur.allocation.candidates import CURVES, MEASURED
from secateur.allocation.plan_sizes import Allocation
from secateur.allocation.remaining_fractions import fractions
from secateur.allocation.search import SIMULATIONS, PlanSearch
from secateur.coupling.network import Kept
from secateur.coupling.plan import Budget
from secateur.coupling.residual_blocks import blocks_of
from secateur.errors import BudgetError

COARSE = (0, 0.125, 0.25, 0.375, 0.5, 0.75, 1)
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
    """Plans that meet a budget, by the number of blocks that they leave out."""

    def __init__(self, search: PlanSearch, keep: Budget) -> None:
        self._search, self._keep = search, keep
        self._order = self._block_order()
        self._by_count: dict[int, Candidate] = {}

    def best(self) -> Candidate:
        """Return the best plan with some blocks left out, or none, and units removed for the rest of the budget."""
        refusal: BudgetError | None = None
        try:
            self._by_count[0] = self._search.best_of_allocations(self._keep)
            allocation = self._by_count[0].allocation
        except BudgetError as failure:
            refusal, allocation = failure, self._fallback_allocation()
        for count in _coarse_counts(len(self._order)):
            if not self._is_time_up():
                self._try_count(count, allocation)
        for _ in range(REFINED):
            if not self._by_count or self._is_time_up():
                break
            best_count = min(self._by_count, key=lambda count: self._by_count[count].loss)
            for count in _middles(sorted(self._by_count), best_count):
                self._try_count(count, allocation)
        if not self._by_count:
            assert refusal is not None
            raise refusal
        return self._with_note(min(self._by_count.values(), key=lambda candidate: candidate.loss))

    def _block_order(self) -> tuple[str, ...]:
        search, network, units = self._search, self._search.simulator.network, list(self._keep)

        def remaining(kept: Kept) -> float:
            return sum(fractions(network, kept, network.cost(kept), units, search.latency).values())

        time, quick = search.config.time, search.simulator.quick_held_out(MEASURED)
        return order_of_blocks(quick, remaining, lambda: time.is_spent(CURVES))

    def _fallback_allocation(self) -> Allocation:
        """Return the allocation to try where no plan with all blocks meets the budget."""
        allocations = self._search.allocations
        by_loss = next((some for some in allocations if some.names == ("loss",)), allocations[0])
        return by_loss._replace(target=self._search.config.filled_target)

    def _is_time_up(self) -> bool:
        return self._search.config.time.is_spent(SIMULATIONS)

    def _try_count(self, count: int, allocation: Allocation) -> None:
        """Simulate a plan with so many blocks left out, if it meets the budget and was not tried before."""
        if count in self._by_count:
            return
        without = allocation._replace(dropped=self._order[:count])
        try:
            plan = self._search.plan(self._keep, without)
        except BudgetError:
            return
        losses = self._search.quick.divergences(plan.kept)
        self._by_count[count] = Candidate(plan, without, losses)

    def _with_note(self, best: Candidate) -> Candidate:
        """Add a note on the numbers of blocks that were tried."""
        dropped = best.allocation.dropped
        losses = ", ".join(f"{count}: {self._by_count[count].loss:.4f}" for count in sorted(self._by_count))
        blocks = f"{len(dropped)} blocks are left out: {', '.join(dropped)}" if dropped else "no block is left out"
        return best.with_note(f"{blocks}; divergence by how many are: {losses}")


def _coarse_counts(blocks: int) -> list[int]:
    """Return the numbers of blocks that are left out at first, from none to all."""
    return sorted({round(blocks * share) for share in COARSE})


def _middles(counts: Sequence[int], best: int) -> list[int]:
    """Return the numbers of blocks half-way from the best one so far to its neighbours."""
    index = counts.index(best)
    neighbours = (*counts[max(index - 1, 0) : index], *counts[index + 1 : index + 2])
    middles = [(best + other) // 2 for other in neighbours]
    return [count for count in middles if count not in counts]
