"""The request of `prune`: its arguments in one record, and their checks before any work is done."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import fx, nn

from secateur.allocation.budget import check_metric_bound, quality_bound
from secateur.allocation.config import PruneConfig
from secateur.coupling.kinds import wanted_kinds
from secateur.coupling.network import Network
from secateur.coupling.plan import Budget
from secateur.data.user_examples import UserExamples
from secateur.importance.data_checks import checked_data
from secateur.importance.scores import Scores
from secateur.options.selections import Selection
from secateur.pruning.setting_checks import check_device, check_layout, check_phase, check_settings
from secateur.tracing import is_convolutional, kinds_for_budget, trace, within_layout, within_selection


@dataclass(frozen=True, eq=False, kw_only=True)
class PruneRequest:
    """The arguments of `prune`, as it documents them; the budget is parsed, and most settings are in one record."""

    model: nn.Module
    data: Any
    test: Any
    keep: Budget
    config: PruneConfig
    scores: Scores | None
    tuning: Mapping[str, Any]
    only: Selection | None
    skip: Selection | None
    kinds: str | Sequence[str] | None
    as_program: bool
    new_biases: bool
    options: Mapping[str, Any]

    @property
    def traced_kinds(self) -> str | Sequence[str] | None:
        """The kinds of units; by default blocks are among them where they save time."""
        is_program = self.as_program or isinstance(self.model, fx.GraphModule)
        has_simulations = self.config.is_simulated and self.config.layout is None
        return kinds_for_budget(self.keep, self.kinds, is_program, has_simulations and is_convolutional(self.model))

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that the result depends on beside the model and the examples, by name."""
        names = ("keep", "tuning", "scores", "only", "skip", "as_program", "new_biases")
        holdout = self.config.holdout if self.test is None else "test="
        settings = {**self.config.settings, **{name: getattr(self, name) for name in names}}
        return {**settings, "kinds": self.traced_kinds, "holdout": holdout, **self.options}

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of the stages."""
        scoring = () if self.scores is not None else ("score",)
        repair = () if self.config.repair is None else ("repair",)
        return ("trace", *scoring, "plan", "cut", *repair, "measure")

    def checked_examples(self) -> UserExamples:
        """Check the settings and the data before any work is done, and return the examples.

        Raises:
            SecateurError: one of them can't be used.
        """
        model, config, keep = self.model, self.config, self.keep
        check_settings(config, keep, self.options, self.tuning, self.scores)
        check_device(model, config, keep)
        check_layout(model, config.layout, self.as_program)
        wanted_kinds(self.kinds, self.as_program)
        check_metric_bound(keep, config.metric)
        criteria = [config.by] if self.scores is None else []
        examples = checked_data(
            model, self.data, self.test, config.loss, criteria, quality_bound(keep), config.metric, self.as_program
        )
        check_phase(model, examples.data, config, keep, self.as_program)
        return examples

    def tracer(self, examples: UserExamples) -> Callable[[nn.Module], Network]:
        """Return the function that traces the model, and smaller ones between rounds of scoring."""
        trace_model = partial(
            trace, example_inputs=examples.data, kinds=self.traced_kinds, as_program=self.as_program,
            new_biases=self.new_biases,
        )  # fmt: skip
        return within_selection(within_layout(trace_model, self.config.layout), self.only, self.skip)
