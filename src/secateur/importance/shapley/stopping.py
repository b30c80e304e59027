"""Stopping rules for sampled estimates, which compose with `&` and `|`.

A rule examines one group after some of its blocks. Its statistics are noisy, and it examines them again and again, so
rules that promise more than a count or a time are heuristics, and their `heuristic` attribute says so.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from secateur.errors import BudgetError
from secateur.options.call_checks import checked_calls

MIN_BLOCKS = 4  # before a statistic of blocks is computed


@dataclass(frozen=True)
class EstimateState:
    """The state of one group's estimate.

    Args:
        coalitions: the number of coalitions evaluated so far.
        evaluations: the sum of the numbers of examples that each coalition was evaluated on.
        elapsed: a function from the seconds allowed in all to the fraction of this group's time that has passed.
        jackknife: a function that returns `replicates` and `errors`, called by rules that examine them.
    """

    coalitions: int
    evaluations: int
    elapsed: Callable[[float], float]
    jackknife: Callable[[], tuple[Tensor, Tensor]]

    @cached_property
    def _jackknife(self) -> tuple[Tensor, Tensor]:
        return self.jackknife()

    @property
    def replicates(self) -> Tensor:
        """The pseudo-values of the score by the jackknife, one for each block, (blocks, units)."""
        return self._jackknife[0]

    @property
    def errors(self) -> Tensor:
        """The standard errors of the scores for these examples, (units,)."""
        return self._jackknife[1]

    @cached_property
    def values(self) -> Tensor:
        """The scores, (units,)."""
        return self.replicates.mean(0)

    @property
    def is_estimable(self) -> bool:
        """True where there are enough blocks and units for statistics of them."""
        return len(self.replicates) >= MIN_BLOCKS and len(self.values) >= 2


@checked_calls
class Rule(ABC):
    """A condition to stop. `a & b` stops when both do, `a | b` when either does.

    Attributes:
        heuristic: what the rule does not promise, in words; empty where it promises all.
    """

    heuristic: str = ""

    @abstractmethod
    def progress(self, state: EstimateState) -> float:
        """Return the progress towards the end: 1 or more when it is reached."""

    def __and__(self, other: "Rule") -> "Rule":
        return CombinedRule(self, other, "&")

    def __or__(self, other: "Rule") -> "Rule":
        return CombinedRule(self, other, "|")


@dataclass(frozen=True)
class CombinedRule(Rule):
    """Two rules of which the later ("&") or the earlier ("|") one counts."""

    first: Rule
    second: Rule
    operator: str

    def progress(self, state: EstimateState) -> float:
        """Return the progress towards the end: 1 or more when it is reached."""
        select = min if self.operator == "&" else max
        return select(self.first.progress(state), self.second.progress(state))

    @property
    def heuristic(self) -> str:  # type: ignore[override]
        """The reservations of the two rules, joined."""
        return "; ".join(dict.fromkeys(rule.heuristic for rule in (self.first, self.second) if rule.heuristic))

    def __str__(self) -> str:
        first, second = (self._operand(rule) for rule in (self.first, self.second))
        return f"{first} {'and' if self.operator == '&' else 'or'} {second}"

    def _operand(self, rule: Rule) -> str:
        """Return a rule in words, in brackets where it combines others in another way."""
        return f"({rule})" if isinstance(rule, CombinedRule) and rule.operator != self.operator else str(rule)


@checked_calls
@dataclass(frozen=True)
class Coalitions(Rule):
    """Stop after so many coalitions of each group."""

    number: float

    def __post_init__(self) -> None:
        check_positive(self.number, "number of coalitions")

    def progress(self, state: EstimateState) -> float:
        """Return the progress towards the end: 1 or more when it is reached."""
        return state.coalitions / self.number

    def __str__(self) -> str:
        return f"{self.number:g} coalitions"


@checked_calls
@dataclass(frozen=True)
class Evaluations(Rule):
    """Stop after so many evaluations of each group: a coalition on one example is one, with its gradient three.

    Args:
        number: the number for a group, or for each of its units.
        per_unit: whether it is the number for each unit.
        depth: the fraction of the network's operators that come after the group. The number is divided by it, as
            coalitions of later layers take less time.
    """

    number: float
    per_unit: bool = False
    depth: float | None = None

    def __post_init__(self) -> None:
        check_positive(self.number, "number of evaluations")
        check_positive(1.0 if self.depth is None else self.depth, "fraction of the operators")

    def progress(self, state: EstimateState) -> float:
        """Return the progress towards the end: 1 or more when it is reached."""
        units = len(state.values) if self.per_unit else 1
        return state.evaluations * (1.0 if self.depth is None else self.depth) / (self.number * units)

    def __str__(self) -> str:
        unit, layers = " per unit" * self.per_unit, ", more in later layers" * (self.depth is not None)
        return f"{self.number:g} evaluations{unit}{layers}"


@checked_calls
@dataclass(frozen=True)
class Seconds(Rule):
    """Stop after so many seconds for all groups together. The scores then depend on the machine."""

    number: float

    def __post_init__(self) -> None:
        check_positive(self.number, "number of seconds")

    def progress(self, state: EstimateState) -> float:
        """Return the progress towards the end: 1 or more when it is reached."""
        return state.elapsed(self.number)

    def __str__(self) -> str:
        return f"{self.number:g} seconds"


def check_positive(value: float, quantity: str) -> None:
    """Check a limit.

    Raises:
        BudgetError: it is not above zero.
    """
    if not value > 0:
        raise BudgetError(f"{value} is not a {quantity}; give more than 0")
