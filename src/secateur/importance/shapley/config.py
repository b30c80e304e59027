"""Configurations of the criteria that evaluate coalitions of units."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from secateur.errors import NameMatchError, OptionError
from secateur.importance.config import CriterionConfig, option_field
from secateur.importance.shapley.aggregates import Aggregate, find_aggregate
from secateur.importance.shapley.memory import MemoryLimit
from secateur.importance.shapley.samplers.base import Sampler
from secateur.importance.shapley.samplers.registry import SAMPLERS
from secateur.importance.shapley.stopping import Rule
from secateur.options import Option, one_of
from secateur.options.call_checks import checked_calls
from secateur.options.table import OPTIONS

AUTO, CONTROLLED, PAPER = "auto", "controlled", "paper"
SAMPLER_NAMES = (AUTO, CONTROLLED, *SAMPLERS)
SAMPLER = Option(
    "the name of a sampler or a function from (players, generator) to a CoalitionDesign",
    lambda value: (isinstance(value, str) and value in SAMPLER_NAMES) or callable(value),
    NameMatchError,
    SAMPLER_NAMES,
)
STOP = Option(
    "a rule of `secateur.stopping`, such as StandardError(0.2) | Seconds(60), or None",
    lambda value: value is None or isinstance(value, Rule),
)
PROBABILITY = Option("a probability between 0 and 1", lambda value: isinstance(value, float) and 0 < value < 1)


@checked_calls
@dataclass(frozen=True, kw_only=True)
class EvaluationConfig(CriterionConfig):
    """Options of all criteria that run the network with some of the units absent.

    Args:
        memory: the largest number of bytes of activations that are alive at once. The limit never changes a result. A
            limit below the need of one step raises an error that names the smallest limit that works. By default
            1 GiB, or one step where that takes more.
        precision: "bfloat16" for the runs of coalitions: up to three times as fast where the processor has
            instructions for it, each coalition's loss known to two or three digits. By default the network's own.
            Losses are taken in float32 in any case.
    """

    memory: float | None = option_field(None, OPTIONS["memory"])
    precision: str | None = option_field(None, OPTIONS["precision"])

    @property
    def memory_limit(self) -> MemoryLimit:
        """The limit of memory."""
        return MemoryLimit(self.memory)


@checked_calls
@dataclass(frozen=True, kw_only=True)
class SamplingConfig(EvaluationConfig):
    """Options of all criteria that sample coalitions until a rule stops them.

    Args:
        coalitions: the number of coalitions to evaluate for each group, approximately.
        stop: the rule that ends the sampling: one of `secateur.stopping`, or several, such as
            `StandardError(0.2) | Seconds(60)`. By default standard errors of half of the spread of the scores.
        aggregate: the statistic from each example's values to one score: "mean", "robust", "published", "absolute", a
            quantile between 0.0 and 1.0, or a function from (units, examples) to (units,). None for the criterion's
            default.
        memory, precision: as in `EvaluationConfig`.
    """

    is_resumable: ClassVar[bool] = True

    coalitions: int | None = option_field(None, OPTIONS["coalitions"])
    stop: Rule | None = option_field(None, STOP)
    aggregate: str | float | Callable[[Tensor], Tensor] | None = option_field(None, OPTIONS["aggregate"])

    def __post_init__(self) -> None:
        super().__post_init__()
        find_aggregate(self.chosen_aggregate)

    @property
    def chosen_aggregate(self) -> str | float | Callable[[Tensor], Tensor]:
        """The statistic that was given, or else the criterion's default."""
        return self.default_aggregate if self.aggregate is None else self.aggregate

    @property
    def default_aggregate(self) -> str:
        """The statistic where none is given."""
        return "mean"

    @property
    def statistic(self) -> Aggregate:
        """The function from examples' values and their noise to scores."""
        return find_aggregate(self.chosen_aggregate)


@checked_calls
@dataclass(frozen=True, kw_only=True)
class Shapley(SamplingConfig):
    """Options of the Shapley value of units within their group (Ancona et al. 2020).

    Args:
        sampler: the estimator: "controlled", "permutation", "antithetic", "orthogonal", "leverage", "kernelshap",
            "adjusted", "svarm", "exact", or a function from (players, generator) to a `CoalitionDesign`. "auto" chooses
            by the number of units and a trial, and `print(scores)` names its choice.
        protocol: "paper" for the protocol of Ancona et al.: 5 permutations, the same for all examples, zero ablation,
            and the "published" statistic. It excludes `sampler`, `coalitions` and `stop`.
        coalitions: the number of coalitions to evaluate for each group, approximately.
        stop: the rule that ends the sampling, such as `secateur.stopping.Seconds(60)`.
        memory: the limit of bytes that the runs of coalitions may take, 1 GiB by default.
        precision: "bfloat16" for faster runs of coalitions, with two or three digits of each loss.
        aggregate: the statistic from each example's values to one score; "robust" by default.

    Examples:
        >>> import torch, secateur as sc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> data = torch.randn(64, 4)
        >>> by = sc.Shapley(sampler="antithetic", coalitions=100, aggregate="mean")
        >>> scores = sc.score(sc.trace(model, data), data, by=by, progress=False)
        >>> scores["0"].layout
        'antithetic, 2 examples a block'
    """

    sampler: str | Sampler = option_field(AUTO, SAMPLER, keyword="estimator")
    protocol: str | None = option_field(None, OPTIONS["protocol"])

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.protocol == PAPER:
            for name in ("sampler", "coalitions", "stop"):
                if name in self.changed_options():
                    raise OptionError(
                        f"{name}= does not apply to protocol='paper', which defines the sampling; leave it out"
                    )

    @property
    def default_aggregate(self) -> str:
        """The statistic where none is given: that of the protocol."""
        return "published" if self.protocol == PAPER else "robust"

    @property
    def required_ablation(self) -> str | None:
        """The ablation of the protocol."""
        return "zero" if self.protocol == PAPER else None


@checked_calls
@dataclass(frozen=True, kw_only=True)
class Banzhaf(SamplingConfig):
    """Options of the weighted Banzhaf value of units within their group.

    Args:
        probability: the probability with which each other unit is present, such as the fraction that will be kept.
        coalitions, stop, aggregate, memory, precision: as in `SamplingConfig`.
    """

    probability: float = option_field(0.5, PROBABILITY)


@checked_calls
@dataclass(frozen=True, kw_only=True)
class Owen(SamplingConfig):
    """Options of the Owen value: the share in the whole network's game, in which groups join one after the other.

    Args:
        sampler: "controlled", "antithetic", or "auto" to choose by a trial.
        coalitions, stop, aggregate, memory, precision: as in `SamplingConfig`.
    """

    sampler: str = option_field(AUTO, one_of(AUTO, CONTROLLED, "antithetic"), keyword="estimator")


@checked_calls
@dataclass(frozen=True, kw_only=True)
class ExpectedGradients(SamplingConfig):
    """Options of expected gradients, a surrogate for the whole network's Shapley value.

    Args:
        coalitions, stop, aggregate, memory, precision: as in `SamplingConfig`.
    """
