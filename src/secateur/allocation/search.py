"""A search for the plan nearest to the dense network: plans by several allocations are simulated and compared."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from secateur.allocation.candidate_plans import (
    Candidate,
    distinct_candidates,
    indices_near_best,
    preferred_candidate,
    rank_by_evidence,
)
from secateur.allocation.candidates import FEWEST
from secateur.allocation.compared_examples import compared_examples
from secateur.allocation.config import PruneConfig
from secateur.allocation.plan_sizes import Allocation, SizeRules, plan_sizes
from secateur.allocation.simulate import FIRST_FOLD, OTHER_FOLDS, PlanSimulator
from secateur.allocation.tied_groups import TiedNetwork
from secateur.coupling.network import Kept
from secateur.coupling.plan import Budget, Plan
from secateur.errors import BudgetError
from secateur.evaluation.channel_steps import channel_step
from secateur.evaluation.latency_table import LatencyTable
from secateur.importance.scores import GroupScores, Scores
from secateur.utils.progress import track

SIMULATIONS = 0.65  # share of a time budget
SIMULATED = 128
MOST_FILLED = 2  # of the allocations that come nearest, those that are tried with sizes that fill kernels


@dataclass(frozen=True, eq=False)
class PlanSearch:
    """All that plans are made from, but for the budget.

    Args:
        simulator: tries plans.
        tied_network: the network that is planned for, and the scores of its units.
        config: the settings.
        latency: this machine's times, for budgets in time.
        allocations: the allocations to try.
        fixed_groups: the units that are kept of groups whose sizes are given, by group.
    """

    simulator: PlanSimulator
    tied_network: TiedNetwork
    config: PruneConfig
    latency: LatencyTable | None
    allocations: Sequence[Allocation]
    fixed_groups: Kept = field(default_factory=dict)

    @property
    def scores(self) -> Scores:
        """The scores of the units."""
        return self.tied_network.scores

    @cached_property
    def quick(self) -> PlanSimulator:
        """The simulator that compares plans; what it computes of the dense network serves all of them."""
        return self.simulator.quick(compared_examples(self.simulator.network, SIMULATED))

    def plan(self, keep: Budget, allocation: Allocation) -> Plan:
        """Plan by one allocation."""
        if allocation.whole:
            try:
                return self._plan_without_kinds(keep, allocation)
            except BudgetError:  # other groups alone don't save as much
                pass
        return self._plan(keep, allocation, self.scores)

    def _plan_without_kinds(self, keep: Budget, allocation: Allocation) -> Plan:
        """Plan so that groups of some kinds lose no unit."""
        groups, sizes = dict[str, GroupScores](), dict[str, int]()
        for name in self.scores:
            group = self.simulator.network[name]
            if group.kind in allocation.whole:
                sizes[name] = group.size
            else:
                groups[name] = self.scores[name]
        plan = self._plan(keep, allocation, replace(self.scores, groups=groups, of=""))
        return replace(plan, kept={**plan.kept, **{name: torch.arange(size) for name, size in sizes.items()}})

    def _plan(self, keep: Budget, allocation: Allocation, scores: Scores) -> Plan:
        config = self.config
        rules = SizeRules(
            config.multiple, config.floor, self.latency, self.fixed_groups, config.filled_target,
            self.tied_network.is_tied,
        )  # fmt: skip
        return plan_sizes(self.simulator.network, scores, keep, allocation, rules)

    def best_of_allocations(self, keep: Budget) -> Candidate:
        """Return the plan that comes nearest to the dense network.

        Sizes that fill the device's kernels are preferred where they cost nothing: where the loss is no larger than
        that of any plan that takes as little time.
        """
        candidates = distinct_candidates(
            Candidate(self.plan(keep, allocation), allocation) for allocation in self.allocations
        )
        if self.latency is not None:  # the time of other sizes is that of the next that fill
            candidates = list(self._filling_candidates(keep, self.allocations)) or candidates
        if len(candidates) > 1:
            candidates = self._simulate_all(candidates)
        ranking = rank_by_evidence(candidates)
        is_complete = len(candidates) == 1 or all(candidate.first_losses is not None for candidate in candidates)
        if self.latency is not None or not is_complete:
            return ranking[0]
        return self._with_filled_kernels(keep, ranking)

    def _with_filled_kernels(self, keep: Budget, ranking: Sequence[Candidate]) -> Candidate:
        """Return the best plan of any sizes, or one whose sizes fill the device's kernels.

        Args:
            keep: the budget.
            ranking: plans of any sizes, the best first.
        """
        best = ranking[0]
        filling = list(self._filling_candidates(keep, [candidate.allocation for candidate in ranking[:MOST_FILLED]]))
        equal_sizes = [candidate for candidate in filling if candidate.counts == best.counts]
        if equal_sizes:
            note = f"sizes fill steps of {self._step} channels as far as they can: the best plan of any sizes does, too"
            return equal_sizes[0]._replace(losses=best.losses).with_note(note)
        if not filling:
            return best
        if best.first_losses is None:  # alone: a plan that fills kernels may be farther, as it is faster
            (best,) = self._simulate_all([best])
        elif best.losses is None:
            best = self.simulate(best)
        nearest = min(self._simulate_all(filling), key=lambda candidate: candidate.rank)
        return best if best.losses is None or nearest.losses is None else preferred_candidate(best, nearest)

    @property
    def prefers_filling(self) -> bool:
        """True if sizes that fill the device's kernels are preferred, and there are examples to compare plans on."""
        return self._step > 1 and self.config.multiple == 1 and self.simulator.examples >= FEWEST

    @property
    def _step(self) -> int:
        """The channels that kernels of the device work on at once."""
        return channel_step(self.config.filled_target, self.simulator.network.device).size

    def _filling_candidates(self, keep: Budget, allocations: Sequence[Allocation]) -> Iterator[Candidate]:
        """Yield plans by these allocations whose sizes fill the device's kernels, each once, within the budget."""
        if not self.prefers_filling:
            return
        counts: set[tuple[int, ...]] = set()
        for allocation in allocations:
            filling = allocation._replace(target=self.config.filled_target)
            try:
                candidate = Candidate(self.plan(keep, filling), filling)
            except BudgetError:
                continue
            if candidate.counts not in counts:
                counts.add(candidate.counts)
                yield candidate

    def _simulate_all(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return the candidates with their divergences, as far as there is time.

        Those that are clearly farther than another on the first fold of examples are not simulated on the others.
        """
        results = list(candidates)
        description = f"{len(candidates)} simulations of allocations"
        for number in self._in_time(range(len(candidates)), description):
            self.quick.measure_ahead((candidate.plan.kept for candidate in candidates[number:]), [FIRST_FOLD])
            first_losses = self.quick.divergences_of(FIRST_FOLD, candidates[number].plan.kept)
            results[number] = candidates[number]._replace(first_losses=first_losses, temperature=self.quick.temperature)
        nearest_first = indices_near_best(results)
        description = f"{len(nearest_first)} of these on the other half of the examples"
        for rank, number in enumerate(self._in_time(nearest_first, description)):
            self.quick.measure_ahead((results[index].plan.kept for index in nearest_first[rank:]), [OTHER_FOLDS])
            results[number] = self.simulate(results[number])
        return results

    def _in_time(self, numbers: Sequence[int], description: str) -> Iterator[int]:
        """Yield the numbers of plans to simulate, as long as there is time for another one.

        Args:
            numbers: the numbers.
            description: how many simulations these are, in words.
        """
        time, longest = self.config.time, 0.0
        for count, number in enumerate(track(numbers, "simulated plans")):
            if time.is_spent(SIMULATIONS, ahead=longest):
                time.leave_out(f"{len(numbers) - count} of {description}")
                return
            start = time.elapsed
            yield number
            longest = max(longest, time.elapsed - start)

    def simulate(self, candidate: Candidate) -> Candidate:
        """Return a candidate with its divergences."""
        losses = self.quick.divergences(candidate.plan.kept, first_losses=candidate.first_losses)
        return candidate._replace(losses=losses, temperature=self.quick.temperature)
