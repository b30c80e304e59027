"""`tradeoff`: one scoring, and a pruned and repaired network at each of several budgets."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from secateur.allocation.budget import parse_budgets
from secateur.allocation.config import DEFAULTS, PruneConfig
from secateur.allocation.quantities import budget_text
from secateur.comparison.settings import FRACTIONS
from secateur.comparison.trials import calibration_and_tests, measured_examples
from secateur.coupling.block_selection import SelectedNetwork, select_units
from secateur.coupling.group_sizes import Sizes
from secateur.coupling.kinds import wanted_kinds
from secateur.coupling.plan import Budget
from secateur.entry import entry_point_with
from secateur.evaluation.calibration import Calibration
from secateur.evaluation.losses import Loss
from secateur.evaluation.metrics import Metric
from secateur.importance.data_checks import checked_data
from secateur.importance.registry import CriterionLike
from secateur.importance.score import READ_BY_CRITERIA, score
from secateur.importance.scores import Scores
from secateur.options.selections import Selection
from secateur.pruning.run_checkpoint import run_checkpoint
from secateur.pruning.setting_checks import check_device, check_layout, check_network, check_settings
from secateur.recovery.repair_runner import RepairSettings
from secateur.recovery.repair_table import How
from secateur.tracing import trace_in_layout
from secateur.tradeoff_curve.curve import Tradeoff, TradeoffPoint
from secateur.tradeoff_curve.points import CurvePoints
from secateur.utils.progress import stage


@entry_point_with(*READ_BY_CRITERIA, is_shared=True)
def tradeoff(
    model: nn.Module,
    data: Any,
    keep: Mapping[str, float | Sequence[float]] | None = None,
    by: CriterionLike = DEFAULTS.by,
    *,
    sizes: Sizes | None = None,
    test: Any = None,
    loss: Loss | None = None,
    metric: Metric | None = None,
    ablation: str = DEFAULTS.ablation,
    allocation: str | Sequence[str] = DEFAULTS.allocation,
    round_to: int | None = DEFAULTS.round_to,
    floor: float = DEFAULTS.floor,
    target: str = DEFAULTS.target,
    repair: How | None = DEFAULTS.repair,
    tuning: Mapping[str, Any] | None = None,
    only: Selection | None = None,
    skip: Selection | None = None,
    kinds: str | Sequence[str] | None = None,
    new_biases: bool = True,
    layout: str | None = DEFAULTS.layout,
    seed: int = DEFAULTS.seed,
    checkpoint: str | Path | None = None,
    progress: bool | None = True,
    **options: Any,
) -> Tradeoff:
    """Prune a network to several budgets from one scoring, and measure what is lost against what is saved.

    Within a group, units are removed in the order of their scores at every budget, so that a group that is smaller in
    one network keeps a subset of the units that it keeps in another. Each network is repaired by itself.

    Args:
        model: the trained model; it is left as it is.
        data: a few hundred examples, with or without labels, as `score` takes them. Unless `test` is given, a quarter
            of them is held out to measure on.
        keep: budgets, `{"macs": (0.75, 0.5, 0.25)}` by default, in macs, params, bytes or units.
        by: the criterion, as `score` takes it.
        sizes: what single groups keep at every budget, as `prune` takes it; budgets take units from the others.
        test: other examples to measure on.
        loss: as `score` takes it.
        metric: as `prune` takes it; the curve shows it, and `pick(metric=-0.02)` allows a decrease.
        ablation: as `score` takes it.
        allocation: as `prune` takes it.
        round_to: as `plan` takes it.
        floor: as `plan` takes it.
        target: as `plan` takes it.
        repair: as `prune` takes it; None for none.
        tuning: options of repairs that train, as `repair` takes them.
        only: as `score` takes it. A block can be removed only if a module is named that it is, or lies in.
        skip: as `score` takes it. A block with a layer inside that is named is not removed.
        kinds: as `trace` takes it.
        new_biases: as `trace` takes it.
        layout: "config", as `prune` takes it: the library of the model loads every network of the curve.
        seed: as `score` takes it.
        checkpoint: a folder for scores, plans and repairs, from which a run that was stopped or killed goes on, as
            `prune` takes it.
        progress: True shows the progress on terminals and in notebooks, and writes lines to standard error elsewhere;
            None omits the lines, and False shows nothing. The logger "secateur" has records in any case.
        options: further options of the criterion, as `score` takes them.

    Returns:
        The curve. Print it, `plot` it, `save` it, or `pick` the smallest network within a bound.

    Raises:
        BudgetError: no budget, one that isn't counted (latency, bounds on the loss), or one that can't be met.
        OptionError: the model's configuration can't say what is removed, or sizes of groups that it ties differ.
        DataError: the examples can't be used, or are too few to hold some out.
        SecateurError: of the kind that `trace`, `score`, `plan` and `cut` raise.

    Examples:
        >>> import torch, secateur as sc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2))
        >>> curve = sc.tradeoff(model, torch.randn(64, 4), {"macs": (0.75, 0.5)}, progress=False)
        >>> [round(point.fraction("macs"), 2) for point in curve.points]
        [0.75, 0.5]
        >>> small = curve.pick(macs=0.5).model
    """
    budgets = parse_budgets({"macs": FRACTIONS} if keep is None else keep)
    config = PruneConfig(
        by=by, ablation=ablation, allocation=allocation, round_to=round_to, floor=floor, target=target, repair=repair,
        rounds=1, seed=seed, loss=loss, metric=metric, sizes=sizes, layout=layout,
    )  # fmt: skip
    _check_budgets(model, budgets, config, options, tuning or {})
    wanted_kinds(kinds, False)
    examples = checked_data(model, data, test, loss, [by], metric=metric)
    settings = {"tuning": tuning, "only": only, "skip": skip, "kinds": kinds, "new_biases": new_biases, **options}
    settings |= {"keep": budgets, **config.settings}
    with run_checkpoint(checkpoint, "tradeoff", model, examples.batches, settings) as results:
        stages = ("trace", "score", *(budget_text(budget) for budget in budgets))
        with stage("trace", stages):
            network = trace_in_layout(model, examples.data, kinds, new_biases, layout)
        selected_network = select_units(network, only, skip)
        check_network(selected_network, examples.batches, budgets, config)
        calibration, tests = calibration_and_tests(model, selected_network.network, examples)
        with stage("score", stages):
            score_network = partial(_scores, selected_network, calibration, config, **options)
            scores = results.scores("scores-1", by, score_network)
        repairs = RepairSettings(tuning or {}, seed, config.time, results.repairs)
        report_examples = measured_examples(calibration, tests, examples.data[0] if examples.test is None else tests[0])
        curve = CurvePoints(model, calibration, report_examples, replace(config, results=results.plans), repairs)
        points = sorted((curve.point(scores, budget, stages) for budget in budgets), key=_remaining_macs, reverse=True)
    return Tradeoff(network.title, sum(batch.size or 1 for batch in tests), tuple(points))


def _scores(selected_network: SelectedNetwork, calibration: Calibration, config: PruneConfig, **options: Any) -> Scores:
    """Score the units as the settings say."""
    return score(
        selected_network.network, calibration.microbatches, config.by, loss=config.loss, ablation=config.ablation,
        only=selected_network.only, skip=selected_network.skip, seed=config.seed, **options,
    )  # fmt: skip


def _check_budgets(
    model: nn.Module,
    budgets: Sequence[Budget],
    config: PruneConfig,
    options: Mapping[str, Any],
    tuning: Mapping[str, Any],
) -> None:
    """Check the settings for every budget, before any work is done.

    Raises:
        SecateurError: one of them can't be used.
    """
    for budget in budgets:
        check_settings(config, budget, options, tuning, None)
        check_device(model, config, budget)
    check_layout(model, config.layout, False)


def _remaining_macs(point: TradeoffPoint) -> int:
    return point.result.plan.cost.macs
