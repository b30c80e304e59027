"""Candidate plans for a budget, and which of two is better by what the examples can tell."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from secateur.allocation.plan_sizes import Allocation
from secateur.coupling.plan import Plan
from secateur.evaluation.changes import standard_error
from secateur.evaluation.divergence import divergence_roots, typical_divergence

PLENTY = 128  # compared examples, from which on the mean difference of two plans decides
CLEAR = 2.0  # standard errors of the first fold, beyond which a plan is set aside
EXCHANGE = 1.5  # the power of the speed gained that the loss may increase by; half of the MACs loses about 4 times more


class Candidate(NamedTuple):
    """A plan, the allocation that it was made by, and its divergences (examples,); None if it was not simulated.

    The divergences are at a temperature by which class scores are divided. A plan that is clearly farther than another
    one on the examples of the first fold has those alone (examples of the fold,). Plans are compared by the roots of
    their divergences, because a few examples have divergences that are many times larger than those of the others.
    """

    plan: Plan
    allocation: Allocation
    losses: Tensor | None = None
    temperature: float = 1.0
    first_losses: Tensor | None = None

    @property
    def rank(self) -> tuple[float, float]:
        """The typical divergence, and that on the first fold, by which plans are ranked that have no other.

        Each is infinite where it is not a number.
        """
        return self.loss, _typical_or_inf(self.first_losses)

    @property
    def loss(self) -> float:
        """The typical divergence; infinite for a plan that was not simulated, and where it is not a number."""
        return _typical_or_inf(self.losses)

    @property
    def steps_kept(self) -> float:
        """The fraction of the MACs in steps that is kept; 1 where it is not known."""
        effective = self.plan.effective
        return 1.0 if effective is None else max(effective.kept, 1) / max(effective.dense, 1)

    def price(self, power: float) -> float:
        """The typical divergence, times a power of the fraction of the MACs in steps that is kept."""
        return self.loss * math.pow(self.steps_kept, power)

    @property
    def measure(self) -> str:
        """The name of what was simulated, with the temperature if it is not 1."""
        return "typical divergence" + self._temperature_text

    def loss_text(self, value: float) -> str:
        """Return a value of what was simulated, with its name, and the temperature if it is not 1."""
        return f"typical divergence {value:.4f}{self._temperature_text}"

    @property
    def _temperature_text(self) -> str:
        return "" if self.temperature == 1 else f" at temperature {self.temperature:g}"

    @property
    def counts(self) -> tuple[int, ...]:
        """The number of units of each group that are kept, in the order of the groups' names."""
        return tuple(len(self.plan.kept[name]) for name in sorted(self.plan.kept))

    def with_note(self, note: str) -> "Candidate":
        """Return the same with a note in the plan."""
        return self._replace(plan=replace(self.plan, notes=(*self.plan.notes, note)))


def _typical_or_inf(losses: Tensor | None) -> float:
    typical = math.nan if losses is None else typical_divergence(losses)
    return math.inf if math.isnan(typical) else typical


def distinct_candidates(candidates: Iterator[Candidate]) -> list[Candidate]:
    """Return the plans that differ: those of one ranking do if they keep other numbers of units."""
    by_counts: dict[tuple[int, ...], Candidate] = {}
    for candidate in candidates:
        by_counts.setdefault(candidate.counts, candidate)
    return list(by_counts.values())


def indices_near_best(candidates: Sequence[Candidate]) -> list[int]:
    """Return the numbers of the plans that may be the nearest one by the first fold of examples, the nearest first.

    The others are farther than the nearest by more than two standard errors of the difference, paired by example, or
    their divergences are not finite. If those of no plan are finite, all plans may be the nearest.

    Args:
        candidates: the plans; those that were not simulated on the first fold are left out.
    """
    first_losses = {
        number: candidate.first_losses
        for number, candidate in enumerate(candidates)
        if candidate.first_losses is not None
    }
    finite = [number for number, losses in first_losses.items() if _has_finite_mean(losses)]
    if not finite:
        return list(first_losses)
    ranking = sorted(finite, key=lambda number: typical_divergence(first_losses[number]))
    nearest_roots = divergence_roots(first_losses[ranking[0]])
    excesses = {number: divergence_roots(first_losses[number]) - nearest_roots for number in ranking}
    return [number for number in ranking if float(excesses[number].mean()) <= CLEAR * standard_error(excesses[number])]


def _has_finite_mean(losses: Tensor) -> bool:
    return math.isfinite(float(losses.mean()))


def is_preferred(candidate: Candidate, other: Candidate, power: float) -> bool:
    """Return whether a plan loses less than another one would if it were cut down to the same time.

    Both were simulated, and the roots of their losses are paired by example. The mean of the differences decides where
    at least 128 examples are compared. Fewer must show a difference above its standard error: the simulation fits a few
    dozen almost exactly, and a plan of three times the loss would pass otherwise.

    Args:
        candidate: the plan.
        other: the plan that it is compared with.
        power: the power of the speed gained that the loss may increase by; 0: the speed does not count.
    """
    assert candidate.losses is not None and other.losses is not None
    allowance = math.pow(other.steps_kept / candidate.steps_kept, power / 2)  # of roots
    gains = allowance * divergence_roots(other.losses) - divergence_roots(candidate.losses)  # (examples,)
    return float(gains.mean()) > (0.0 if len(gains) >= PLENTY else standard_error(gains))


def rank_by_evidence(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return plans in ascending order of their divergences, but equal shares first unless another is clearly nearer.

    Another plan is taken in place of equal shares, the simplest one, only if the mean root of its divergences is
    smaller by more than the standard error of the difference, which is paired by example.

    Args:
        candidates: the plans; those that were not simulated come last.
    """
    ranking = sorted(candidates, key=lambda candidate: candidate.rank)
    best = ranking[0]
    uniform = next((candidate for candidate in ranking if candidate.allocation.names == ("uniform",)), best)
    pair = [uniform.losses, best.losses] if best.losses is not None else [uniform.first_losses, best.first_losses]
    before, after = pair  # (examples,) each
    if uniform is best or before is None or after is None or (_has_finite_mean(after) and not _has_finite_mean(before)):
        return ranking
    gains = divergence_roots(before) - divergence_roots(after)
    if float(gains.mean()) > standard_error(gains):
        return ranking
    note = (
        f"every group keeps the same fraction: another plan has a {uniform.measure} of {typical_divergence(after):.4f} "
        f"in place of {typical_divergence(before):.4f}, a difference within its standard error"
    )
    return [uniform.with_note(note), *(candidate for candidate in ranking if candidate is not uniform)]


def preferred_candidate(plain: Candidate, filling: Candidate) -> Candidate:
    """Return a plan of any sizes or one whose sizes fill kernels, with a note that says why.

    Sizes that fill kernels are chosen where they take less time and `is_preferred` says so.
    """
    before, after = plain.plan.effective, filling.plan.effective
    assert before is not None and after is not None
    is_filling = before.kept > after.kept and is_preferred(filling, plain, EXCHANGE)
    choice = filling if is_filling else plain
    note = (
        f"sizes {'fill' if is_filling else 'do not fill'} steps of {after.step} channels: the best plan of such sizes "
        f"keeps {after.kept / max(after.dense, 1):.0%} of the MACs in steps ({plain.loss_text(filling.loss)}), "
        f"the best plan of any sizes {before.kept / max(before.dense, 1):.0%} ({plain.loss:.4f})"
    )
    return choice.with_note(note)
