"""`prune`: trace, score, plan, cut and repair in one call, with a report."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import fx, nn

from secateur.allocation.budget import check_metric_bound, parse_budget, quality_bound
from secateur.allocation.choose_plan import choose_plan
from secateur.allocation.config import DEFAULTS, PruneConfig
from secateur.allocation.score_checks import warn_of_other_weights
from secateur.coupling.block_selection import select_blocks
from secateur.coupling.group_sizes import Sizes
from secateur.coupling.kinds import wanted_kinds
from secateur.coupling.network import Network
from secateur.coupling.plan import cost_text
from secateur.entry import entry_point_with
from secateur.evaluation.calibration import Calibration
from secateur.evaluation.losses import Loss
from secateur.evaluation.metrics import Metric
from secateur.evaluation.report_split import split_examples
from secateur.evaluation.runtimes import EAGER, is_installed, runtime_of
from secateur.graph.parametrizations import bake_parametrizations
from secateur.importance.context import as_examples, network_microbatches
from secateur.importance.data_checks import checked_data
from secateur.importance.registry import CriterionLike
from secateur.importance.score import READ_BY_CRITERIA, score
from secateur.importance.scores import Scores
from secateur.pipeline import score_iteratively
from secateur.prune_settings import check_device, check_layout, check_network, check_phase, check_settings
from secateur.recovery.chain import RepairStep, Tuning
from secateur.recovery.refit_memory import check_refit_memory
from secateur.recovery.repair import How, run_repairs
from secateur.report.measured_report import measure_networks
from secateur.results import Result
from secateur.run_checkpoint import recalled_scores, run_checkpoint
from secateur.surgery.cut import cut
from secateur.surgery.recipe import recipe_of
from secateur.tracing import kinds_for_budget, trace, within_layout, within_selection
from secateur.utils.collected_warnings import warn
from secateur.utils.progress import stage
from secateur.utils.selections import Selection
from secateur.utils.time_budget import TimeBudget


@entry_point_with(*READ_BY_CRITERIA)
def prune(
    model: nn.Module,
    data: Any,
    keep: Mapping[str, float | str] | None = None,
    by: CriterionLike = DEFAULTS.by,
    *,
    sizes: Sizes | None = None,
    scores: Scores | None = None,
    test: Any = None,
    holdout: float | None = None,
    loss: Loss | None = None,
    metric: Metric | None = None,
    ablation: str = DEFAULTS.ablation,
    allocation: str | Sequence[str] = DEFAULTS.allocation,
    rounds: int = DEFAULTS.rounds,
    round_to: int | None = DEFAULTS.round_to,
    floor: float = DEFAULTS.floor,
    target: str = DEFAULTS.target,
    repair: How | None = DEFAULTS.repair,
    tuning: Mapping[str, Any] | None = None,
    only: Selection | None = None,
    skip: Selection | None = None,
    kinds: str | Sequence[str] | None = None,
    as_program: bool = False,
    new_biases: bool = True,
    layout: str | None = DEFAULTS.layout,
    context_length: int | None = DEFAULTS.context_length,
    seconds: float | None = None,
    seed: int = DEFAULTS.seed,
    checkpoint: str | Path | None = None,
    progress: bool | None = True,
    **options: Any,
) -> Result:
    """Trace, score, plan, cut and repair a model, and measure the result.

    Args:
        model: the trained model; it is left as it is.
        data: a few hundred examples, with or without labels, as `score` takes them.
        keep: the budget: `{"macs": 0.5}`, "params", "bytes" or "units", as a fraction of the dense network or as an
            absolute number, `{"macs": "300M"}`, `{"bytes": "1MB"}`; or a time for a batch like those of `data`, on
            this machine: `{"latency": 0.5}` of the dense network's, `{"speedup": 2}`, or `{"ms": 5}`; for models that
            generate text `{"decode_latency": 0.7}` of the dense network's time for one token with a cache, or
            `{"prefill_latency": 0.7}` for a prompt, with a batch of one; or a bound, by which the smallest network is
            searched that loses no more on examples held out of `data`: `{"loss": 0.05}`, `{"accuracy": -0.01}` or
            `{"metric": -0.02}`, against the labels or, without any, the dense network's output. None where
            `sizes` says all.
        by: the criterion. "obs" is made for networks that are refitted (docs/lowdata.md); "shapley" estimates what
            units contribute to the network as it is.
        sizes: what single groups keep, as `plan` takes it: `{"layer1.*": 0.5, model.head: 24}`.
        scores: scores of this model that exist, in place of scoring by `by`.
        test: other examples to measure on. By default a part of `data` is kept away from scores, the choice of the plan
            and repair, and the report's numbers come from it.
        holdout: the fraction of `data` that is kept away without `test`. By default an eighth, at least 16 and at most
            1,024 examples but never more than a quarter; of fewer than 32 examples none, and the report then names its
            numbers in-sample. 0 uses all examples for everything.
        loss: the user's own loss, as `score` takes it.
        metric: a function of outputs and targets, for the report and for a bound on it, which gives one value per
            example, or one number for all of them, such as F1, mean intersection over union or a word error rate. It
            takes the outputs of the network as they are; without targets, those of the dense network stand in their
            place.
        ablation: as `score` takes it.
        allocation: as `plan` takes it; "auto" tries several allocations on examples held out and takes the one that
            comes nearest to the dense network.
        target: the device that the small network is for: "auto" for the one that the model is on, "cpu", "onnxruntime",
            "cuda", "tensorrt", "mps", or a processor, "avx512", "avx2", "arm". Numbers of units fill its kernels where
            that costs nothing: where the loss increases by less than time is saved. "any": any sizes. `round_to` is the
            hard form: all numbers are multiples of it. With "onnxruntime", times are measured by onnxruntime on this
            machine's processor (`pip install 'secateur[onnxruntime]'`), those of the report and those of a budget in
            time; with all others by torch, on the device that the model is on.
        rounds: how often the network is scored: each further time with some units removed.
        round_to: as `plan` takes it.
        floor: as `plan` takes it.
        repair: the repair of the cut model, as `repair` takes it; None for none.
        tuning: options of `repair`, such as `{"steps": 500}` for "tune".
        only: as `score` takes it. A block can be removed only if a module is named that it is, or lies in.
        skip: as `score` takes it. A block with a layer inside that is named is not removed.
        kinds: as `trace` takes them; blocks are among them where the budget is in time.
        as_program: as `trace` takes it.
        new_biases: as `trace` takes it.
        layout: "config" for a model of the transformers library: cuts keep to what its configuration can say (one
            `intermediate_size`, one number of heads, a hidden size, fewer layers), so that all layers lose as many
            units, and no layer gets a new bias. The small model's `config` says its shape, and its own
            `save_pretrained` writes what `from_pretrained` loads. None for any sizes.
        context_length: the number of tokens in the cache, or of the prompt, that budgets in `decode_latency` and
            `prefill_latency` are measured with; by default that of the first row of `data`.
        seconds: about how long all of it may take. What can be done without is left out in time, the measuring of
            curves first, then simulated plans, then "adapt" for layers far behind; a warning and the report list the
            steps. Tracing, scoring, the cut and one refit are always done. By default as long as it takes.
        seed: for all that is random.
        checkpoint: a folder for scores, plans that were tried and repairs. A run that was stopped or killed goes on
            from it to the same bits; a checkpoint of other settings, examples or weights is refused.
        progress: True shows the progress on terminals and in notebooks, and writes lines to standard error elsewhere;
            None omits the lines, and False shows nothing. The logger "secateur" has records in any case.
        **options: further options of the criterion, as `score` takes them.

    Returns:
        The small model (`result.model`), the plan, the scores and the report.

    Raises:
        SecateurError: of the kind that `trace`, `score`, `plan` and `cut` raise.

    Examples:
        >>> import torch, secateur as sc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> result = sc.prune(model, torch.randn(64, 4), keep={"macs": 0.5}, progress=False)
        >>> result.model[0], result.plan.cost.params
        (Linear(in_features=4, out_features=4, bias=True), 30)
    """
    keep = parse_budget(keep, sizes)
    config = PruneConfig(
        by=by, ablation=ablation, allocation=allocation, round_to=round_to, floor=floor, sizes=sizes, target=target,
        repair=repair, rounds=rounds, seed=seed, loss=loss, metric=metric, holdout=holdout, time=TimeBudget(seconds),
        layout=layout, context_length=context_length,
    )  # fmt: skip
    check_settings(config, keep, options, tuning or {}, scores)
    check_device(model, config, keep)
    check_layout(model, layout, as_program)
    wanted_kinds(kinds, as_program)
    criteria = [by] if scores is None else []
    check_metric_bound(keep, metric)
    batches, tests = checked_data(model, data, test, loss, criteria, quality_bound(keep), metric, as_program)
    check_phase(model, batches, config, keep, as_program)
    kinds = kinds_for_budget(keep, kinds, as_program or isinstance(model, fx.GraphModule))
    trace_network = partial(trace, example_inputs=batches, kinds=kinds, as_program=as_program, new_biases=new_biases)
    trace_model = within_selection(within_layout(trace_network, layout), only, skip)
    settings = {
        **config.settings, "keep": keep, "tuning": tuning, "scores": scores, "only": only, "skip": skip, "kinds": kinds,
        "as_program": as_program, "new_biases": new_biases, "holdout": holdout if test is None else "test=", **options,
    }  # fmt: skip
    with run_checkpoint(checkpoint, "prune", model, batches, settings) as saved:
        stages = prune_stages(config, scores is None)
        with stage("trace", stages) as tracing:
            network = trace_model(model)
            tracing.add_result(f"{len(network.groups)} groups of {network.units:,} units")
        network, only, skip = select_blocks(network, only, skip)
        batches, tests = as_examples(network, batches), as_examples(network, tests)
        check_network(network, [*batches, *tests], [keep], only, skip, config.multiple, floor, sizes)
        examples = split_examples(batches, None if test is None else tests, holdout, scores is not None)
        cells = network_microbatches(network, examples.fitted)
        if config.refits:
            check_refit_memory(network, cells)
        if scores is None:
            score_network = partial(
                score, data=examples.fitted, by=by, loss=loss, ablation=ablation, only=only, skip=skip, seed=seed,
                **options,
            )  # fmt: skip
            with stage("score", stages):
                recall = recalled_scores(saved, by, score_network)
                scores = score_iteratively(model, network, cells, recall, keep, rounds, trace_model, sizes)
        else:
            scores = _selected_scores(network, scores, only, skip)
        config = replace(config, results=saved.plans)
        calibration = Calibration(network, cells, bake_parametrizations(model))
        with stage("plan", stages) as planning:
            plan = choose_plan(calibration, scores, keep, config, model)
            planning.add_result(cost_text(plan))
        with stage("cut", stages):
            small, recipe = cut(model, plan), recipe_of(model, plan)
        steps: tuple[RepairStep, ...] = ()
        if repair is not None:
            repair_settings = Tuning(tuning or {}, seed, config.time, saved.repairs)
            with stage("repair", stages) as repairing:
                steps = run_repairs(small, plan, recipe, calibration, repair, repair_settings)
                for step in steps:
                    repairing.add_result(str(step))
                    step.warn()
        _warn_of_skipped(config.time)
        runtime = runtime_of(target)
        with stage("measure", stages):
            report = measure_networks(
                model, small, plan, scores, examples.on(network.device), loss, metric, steps=steps, time=config.time,
                runtime=runtime if is_installed(runtime) else EAGER, context_length=context_length,
            )  # fmt: skip
    return Result(small, plan, scores, report, recipe)


def _selected_scores(network: Network, scores: Scores, only: Selection | None, skip: Selection | None) -> Scores:
    """Return scores that exist, of the selected groups; warn where the network has other weights now."""
    warn_of_other_weights(network, scores)
    if only is None and skip is None:
        return scores
    selected = {group.name: scores[group.name] for group in network.select(only, skip) if group.name in scores}
    return replace(scores, groups=selected, of="")


def prune_stages(config: PruneConfig, scores: bool) -> tuple[str, ...]:
    """Return the names of the stages.

    Args:
        config: the settings.
        scores: whether the network is scored.
    """
    repair = () if config.repair is None else ("repair",)
    return ("trace", *(("score",) if scores else ()), "plan", "cut", *repair, "measure")


def _warn_of_skipped(time: TimeBudget) -> None:
    """Warn of the steps that were left out to meet a budget of seconds."""
    if time.left_out:
        warn(
            f"left out, so that it takes no more than {time.seconds:g} s: {', '.join(time.left_out)}; with more time "
            "the small network may be nearer to the dense one"
        )
