"""`compare`: several criteria, measured on examples that no criterion saw."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from secateur.allocation.config import COMPARISON
from secateur.comparison.settings import (
    check_comparison,
    comparison_budgets,
    named_criteria,
    options_by_current_names,
)
from secateur.comparison.trials import ComparisonTrials, calibration_and_tests
from secateur.coupling.block_selection import SelectedNetwork, select_units
from secateur.coupling.group_sizes import Sizes
from secateur.coupling.kinds import wanted_kinds
from secateur.coupling.plan import Budget
from secateur.entry import entry_point_with
from secateur.errors import DataError, SecateurError, StorageError
from secateur.evaluation.losses import Loss
from secateur.evaluation.metrics import Metric
from secateur.importance.data_checks import checked_data
from secateur.importance.registry import CriterionLike
from secateur.importance.score import score
from secateur.importance.scores import Scores
from secateur.options.selections import Selection
from secateur.pruning.run_checkpoint import RunCheckpoint, run_checkpoint
from secateur.pruning.setting_checks import check_layout, check_network
from secateur.recovery.repair_table import How
from secateur.report.comparison import Comparison
from secateur.tracing import trace_in_layout
from secateur.utils.progress import stage

DEFAULT = ("obs", "shapley", "taylor-gates", "taylor", "sensitivity", "apoz", "fpgm", "l2", "random")


@entry_point_with(is_shared=True)
def compare(
    model: nn.Module,
    data: Any,
    by: Sequence[CriterionLike] = DEFAULT,
    keep: Mapping[str, float | Sequence[float]] | None = None,
    *,
    sizes: Sizes | None = None,
    test: Any = None,
    loss: Loss | None = None,
    metric: Metric | None = None,
    ablation: str = COMPARISON.ablation,
    allocation: str = "uniform",
    repair: How | None = COMPARISON.repair,
    only: Selection | None = None,
    skip: Selection | None = None,
    kinds: str | Sequence[str] | None = None,
    new_biases: bool = True,
    layout: str | None = COMPARISON.layout,
    seed: int = COMPARISON.seed,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    checkpoint: str | Path | None = None,
    progress: bool | None = True,
) -> Comparison:
    """Rank, cut and repair a network by several criteria, and measure each on examples that no criterion saw.

    Args:
        model: the trained model; it is left as it is.
        data: a few hundred examples, with or without labels, as `score` takes them. Unless `test` is given, a quarter
            of them is held out to judge by.
        by: names of criteria, or functions like them.
        keep: budgets, such as `{"macs": (0.75, 0.5, 0.25)}`, the default without `sizes`, or
            `{"params": 0.5}`.
        sizes: what single groups keep at every budget, as `prune` takes it; without `keep` the other groups stay whole.
        test: other examples to judge by.
        loss: as `score` takes it; by default the loss against the labels, or without any the divergence from the dense
            network's output.
        metric: a function of outputs and targets, as `prune` takes it, by which criteria are ranked in place of the
            loss. Larger values are better unless its attribute `higher_is_better` is false.
        ablation: as `score` takes it.
        allocation: as `plan` takes it. With "uniform" every group keeps the same fraction, so that only the order
            within groups counts. With "auto" each criterion's plans are chosen as `prune` chooses them, which takes
            much longer.
        repair: the repair of the cut networks, as `repair` takes it; networks are judged both without and with it.
            None for none. `prune` repairs by ("refit", "adapt").
        only: as `score` takes it. A block can be removed only if a module is named that it is, or lies in.
        skip: as `score` takes it. A block with a layer inside that is named is not removed.
        kinds: as `trace` takes them.
        new_biases: as `trace` takes it.
        layout: "config", as `prune` takes it: criteria are compared on cuts that the model's configuration can say.
        seed: for all that is random.
        options: further options of `score`, by the name of the criterion: `{"shapley": {"ablation": "impute"}}`.
        checkpoint: a folder for scores and trials, from which a run that was stopped or killed goes on, as `prune`
            takes it.
        progress: True shows the progress on terminals and in notebooks, and writes lines to standard error elsewhere;
            None omits the lines, and False shows nothing. The logger "secateur" has records in any case.

    Returns:
        The loss of each criterion at each budget, the agreement of their rankings, and which one is recommended and
        why. A criterion that can't rank this network is named there with its reason.

    Raises:
        BudgetError: no budget, one that isn't counted (latency, bounds on the loss), or one that can't be reached.
        OptionError: the model's configuration can't say what is removed, or sizes of groups that it ties differ.
        NameMatchError: a name is unknown, or there is none.
        SecateurError: of the kind that `trace` and `score` raise.

    Examples:
        >>> import torch, secateur as sc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> comparison = sc.compare(model, torch.randn(64, 4), by=("obs", "l1"), keep={"macs": 0.5}, progress=False)
        >>> sorted({trial.by for trial in comparison.trials}), comparison.best("refit") in ("obs", "l1")
        (['l1', 'obs'], True)
    """
    budgets, criteria = comparison_budgets(keep, sizes), named_criteria(by)
    options = options_by_current_names(options or {})
    check_comparison(criteria, options, allocation, repair)
    check_layout(model, layout, False)
    wanted_kinds(kinds, False)
    examples = checked_data(model, data, test, loss, list(criteria.values()), metric=metric)
    run_settings = {
        "by": list(criteria.values()), "keep": budgets, "loss": loss, "ablation": ablation, "allocation": allocation,
        "repair": repair, "only": only, "skip": skip, "kinds": kinds, "new_biases": new_biases, "seed": seed,
        "options": options, "metric": metric, "sizes": sizes, "layout": layout,
    }  # fmt: skip
    config = replace(
        COMPARISON, allocation=allocation, repair=repair, loss=loss, metric=metric, sizes=sizes, layout=layout
    )
    with run_checkpoint(checkpoint, "compare", model, examples.batches, run_settings) as results:
        with stage("trace", ("trace", *criteria)):
            network = trace_in_layout(model, examples.data, kinds, new_biases, layout)
        selected_network = select_units(network, only, skip)
        check_network(selected_network, examples.batches, budgets, config)
        calibration, tests = calibration_and_tests(model, selected_network.network, examples)
        trials = ComparisonTrials(model, calibration, tests, replace(config, results=results.plans), results.repairs)
        settings = {"loss": loss, "ablation": ablation, "seed": seed, **_selection(selected_network)}
        score_units = partial(score, selected_network.network, calibration.microbatches, **settings)
        refusals = _add_trials(trials, _scorings(criteria, score_units, options, results), budgets)
    return Comparison(network.title, tuple(trials.trials), trials.scores, refusals, trials.dense, test is not None)


def _selection(selected_network: SelectedNetwork) -> dict[str, Any]:
    """Return the arguments of `score` that select groups."""
    return {"only": selected_network.only, "skip": selected_network.skip}


def _scorings(
    criteria: Mapping[str, CriterionLike],
    score_units: Callable[..., Scores],
    options: Mapping[str, Mapping[str, Any]],
    results: RunCheckpoint,
) -> dict[str, Callable[[], Scores]]:
    """Return for each criterion the function that computes its scores, or reads those of an interrupted run.

    Args:
        criteria: the criteria by name.
        score_units: scores the network by a criterion, with its options.
        options: the options of criteria, by name.
        results: the scores of an interrupted run.
    """
    return {
        name: partial(
            results.scores, f"scores-{number}", criterion, partial(score_units, criterion, **options.get(name, {}))
        )
        for number, (name, criterion) in enumerate(criteria.items(), 1)
    }


def _add_trials(
    trials: ComparisonTrials, scorings: Mapping[str, Callable[[], Scores]], budgets: Sequence[Budget]
) -> dict[str, str]:
    """Score by each criterion, and add its trials. Return why criteria cannot rank the network, by their names.

    Raises:
        DataError: no criterion can rank the network.
    """
    refusals: dict[str, str] = {}
    for name, compute_scores in scorings.items():
        with stage(name, ("trace", *scorings)) as criterion_stage:
            start = time.perf_counter()
            try:
                scores = compute_scores()
            except StorageError:
                raise
            except SecateurError as refusal:
                refusals[name] = str(refusal)
                criterion_stage.add_result("cannot rank this network")
                continue
            trials.add(name, scores, time.perf_counter() - start, budgets)
    if not trials.scores:
        raise DataError("no criterion can rank this network:\n" + "\n".join(refusals.values()))
    return refusals
