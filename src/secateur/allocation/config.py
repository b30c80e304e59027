"""The settings of `prune`, with the defaults that `plan`, `compare` and the benchmarks share."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from secateur.allocation.build_sequence import ORDERS
from secateur.allocation.loss_curves import Curves
from secateur.coupling.group_sizes import Sizes
from secateur.evaluation.channel_steps import ANY, AUTO
from secateur.evaluation.losses import Loss
from secateur.evaluation.metrics import Metric
from secateur.files.state_memo import StateMemo
from secateur.importance.registry import CriterionLike
from secateur.options import check_name
from secateur.options.table import SOME_NAMES
from secateur.recovery.repair_table import DEFAULT_REPAIR, How, resolve_repairs
from secateur.utils.time_budget import TimeBudget


@dataclass(frozen=True, eq=False)
class PruneConfig:
    """The settings of `prune`; the defaults of its arguments are those of this class.

    Args:
        by: the criterion.
        ablation: what stands in the place of absent units while units are scored.
        allocation: one allocation or several, by name; "auto" tries several on examples held out.
        curves: the loss by the number of removed units, by group; None for the scores' own, or measured curves.
        dropped: the blocks that are removed as a whole, by their paths.
        round_to: the number that sizes are multiples of; None for any size.
        floor: the fewest units of a group; below 1 a fraction of the group.
        sizes: what single groups keep, as `Plan.with_kept` takes it.
        target: the device whose kernels the sizes fill where that costs nothing.
        repair: the repair that follows; plans are tried with refitted layers if it refits.
        rounds: how often the network is scored.
        seed: for all that is random.
        loss: the user's own loss, for a bound on it.
        metric: the user's own metric, for a bound on it and for reports.
        holdout: the fraction of the examples that is kept away for the report; None for the default.
        context_length: the number of tokens before the ones that are generated, for budgets in their time.
        layout: "config" where cuts keep to what the model's configuration can say.
        time: the time that all of it may take.
        results: the results of an interrupted run, by key.
    """

    by: CriterionLike = "obs"
    ablation: str = "mean"
    allocation: str | Sequence[str] = AUTO
    curves: Curves | None = None
    dropped: tuple[str, ...] = ()
    round_to: int | None = None
    floor: float = 1
    sizes: Sizes | None = None
    target: str = AUTO
    repair: How | None = DEFAULT_REPAIR
    rounds: int = 1
    seed: int = 0
    loss: Loss | None = None
    metric: Metric | None = None
    holdout: float | None = None
    layout: str | None = None
    context_length: int | None = None
    time: TimeBudget = field(default_factory=TimeBudget)
    results: StateMemo = field(default_factory=StateMemo)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that results depend on, by name."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name not in ("time", "results")}

    @property
    def refits(self) -> bool:
        """True if the repair solves for the weights of layers."""
        return self.repair is not None and any(name == "refit" for name, _ in resolve_repairs(self.repair))

    @property
    def is_simulated(self) -> bool:
        """True if plans by several allocations are refitted and compared."""
        return self.allocation == AUTO and self.refits

    @property
    def multiple(self) -> int:
        """The number that all sizes are multiples of."""
        return self.round_to or 1

    @property
    def filled_target(self) -> str:
        """The device whose kernels the sizes fill: none where `round_to` says what sizes are multiples of."""
        return ANY if self.round_to is not None else self.target


DEFAULTS = PruneConfig()
WITHOUT_DATA = PruneConfig(allocation="uniform", target=ANY, repair=None)
"""The defaults of `plan` where there are no examples to try plans on."""
COMPARISON = PruneConfig(allocation="uniform", repair="refit")
"""The defaults of `compare`: the same share of every group, so that only the order within groups counts."""


def check_allocation(allocation: str | Sequence[str]) -> None:
    """Check the names of allocations.

    Raises:
        NameMatchError: there is no allocation of that name.
        OptionError: it is no name, nor a list of names.
    """
    SOME_NAMES.check("allocation", allocation)
    for name in [allocation] if isinstance(allocation, str) else allocation:
        check_name(name, (AUTO, *ORDERS), f"allocation={name!r} is unknown", shows=False)
