"""The whole way in one call: trace, score, plan, cut, repair, and a report."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import fx, nn

from secateur.allocation.budget import QUALITY_BOUNDS, TIMES, parse_keep
from secateur.allocation.plan import check_reachable
from secateur.coupling.kinds import wanted_kinds
from secateur.data.batch import on_device
from secateur.data.model_inputs import device_of
from secateur.entry import entry_point_with
from secateur.errors import TraceError
from secateur.evaluation.channel_steps import AUTO, channel_step
from secateur.evaluation.losses import Loss
from secateur.evaluation.runtimes import EAGER, check_runtime, is_installed, runtime_of
from secateur.importance.context import as_examples
from secateur.importance.data_checks import check_program_sizes, checked_data
from secateur.importance.registry import Criterion
from secateur.importance.score import READ_BY_CRITERIA, check_scoring, score
from secateur.pipeline import PruneConfig, check_allocation, check_rounds, plan_cut_repair, score_iteratively
from secateur.recovery.chain import DEFAULT as DEFAULT_REPAIR
from secateur.recovery.chain import Tuning
from secateur.recovery.repair import How, check_options, resolve_repairs
from secateur.report.measured_report import measure_networks
from secateur.results import Result
from secateur.surgery.recipe import recipe_of
from secateur.tracing import _kinds_for, trace
from secateur.utils.time_budget import TimeBudget


@entry_point_with(*READ_BY_CRITERIA)
def prune(
    model: nn.Module,
    data: Any,
    keep: Mapping[str, float | str],
    by: str | Criterion = "obs",
    *,
    test: Any = None,
    loss: Loss | None = None,
    ablation: str = "mean",
    allocation: str | Sequence[str] = "auto",
    rounds: int = 1,
    round_to: int | None = None,
    floor: float = 1,
    target: str = AUTO,
    repair: How | None = DEFAULT_REPAIR,
    tuning: Mapping[str, Any] | None = None,
    only: str | Sequence[str] | None = None,
    skip: str | Sequence[str] | None = None,
    kinds: str | Sequence[str] | None = None,
    as_program: bool = False,
    new_biases: bool = True,
    seconds: float | None = None,
    seed: int = 0,
    progress: bool = True,
    **options: Any,
) -> Result:
    """Trace, score, plan, cut and repair a model, and measure what became of it.

    Args:
        model: the trained model; it is left as it is.
        data: a few hundred examples, with or without labels, as `score` takes them.
        keep: what is left: `{"macs": 0.5}`, "params", "bytes" or "units", as a fraction of the dense network or as an
            absolute number, `{"macs": "300M"}`, `{"bytes": "1MB"}`; or a time for a batch like those of `data`, on
            this machine: `{"latency": 0.5}` of the dense network's, `{"speedup": 2}`, or `{"ms": 5}`; or a bound, by
            which the smallest network is sought that loses no more on examples held out of `data`: `{"loss": 0.05}` or
            `{"accuracy": -0.01}`, against the labels or, without any, the dense network's output.
        by: the criterion. "obs" is made for networks that are refitted (docs/lowdata.md); "shapley" tells what units
            are worth in the network as it is.
        test: other examples to measure on; by default those of `data`, and the report says so.
        loss, ablation, only, skip, seed, progress, options: as `score` takes them.
        kinds, as_program, new_biases: as `trace` takes them; blocks are among the kinds where the budget is in time.
        allocation, round_to, floor: as `plan` takes them; "auto" tries several allocations on examples held out and
            takes the one that comes nearest to the dense network.
        target: the device that the small network is for: "auto" for the one that the model is on, "cpu", "onnxruntime",
            "cuda", "tensorrt", "mps", or a processor, "avx512", "avx2", "arm". Numbers of units fill its kernels where
            that costs nothing: where what is lost grows by less than time is saved. "any": whatever the scores say.
            `round_to` is the hard form: all numbers are multiples of it. With "onnxruntime", times are measured by
            onnxruntime on this machine's processor (`pip install 'secateur[onnxruntime]'`), those of the report and
            those of a budget in time; with all others by torch, on the device that the model is on.
        rounds: score again on a network from which a part is gone, so many times.
        repair: how the cut model is mended, as `repair` takes it; None for not at all.
        tuning: options of `repair`, such as `{"steps": 500}` for "tune".
        seconds: about how long all of it may take. What can be done without is left out in time, the measuring of
            curves first, then rehearsals of allocations, then "adapt" for layers far behind; a warning and the report
            say what. Tracing, scoring, the cut and one refit are done in any case. By default as long as it takes.

    Returns:
        The small model (`result.model`), the plan, the scores and the report.

    Raises:
        SecateurError: of the kind that `trace`, `score`, `plan` and `cut` raise.

    Example:
        >>> import torch, secateur as sc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> result = sc.prune(model, torch.randn(64, 4), keep={"macs": 0.5}, progress=False)
        >>> result.model[0], result.plan.cost.params
        (Linear(in_features=4, out_features=4, bias=True), 30)
    """
    time = TimeBudget(seconds)
    keep = parse_keep(keep)
    check_scoring(by, options)
    if repair is not None:
        resolve_repairs(repair)
        check_options(tuning or {})
    check_allocation(allocation)
    channel_step(target, device_of(model))
    runtime = runtime_of(target)
    if set(keep) & set(TIMES):
        check_runtime(runtime)
    wanted_kinds(kinds, as_program)
    check_rounds(rounds, keep)
    bound = next((unit for unit in QUALITY_BOUNDS if unit in keep), None)
    batches, tests = checked_data(model, data, test, loss, [by], bound)
    kinds = _kinds_for(keep, kinds, as_program or isinstance(model, fx.GraphModule))
    traced = partial(trace, example_inputs=batches, kinds=kinds, as_program=as_program, new_biases=new_biases)
    network = traced(model)
    batches, tests = as_examples(network, batches), as_examples(network, tests)
    check_program_sizes(network, [*batches, *tests])
    if not network.groups:
        raise TraceError(f"nothing in this network can be cut\n{network}")
    check_reachable(network, network.select(only, skip), keep, round_to or 1, floor)
    scored = partial(
        score, data=batches, by=by, loss=loss, ablation=ablation, only=only, skip=skip, seed=seed, progress=progress,
        **options,
    )  # fmt: skip
    scores = score_iteratively(model, network, batches, scored, keep, rounds, traced)
    wish = PruneConfig(
        keep, allocation, round_to, floor, repair, Tuning(tuning or {}, seed, progress, time), loss, target
    )
    done = plan_cut_repair(model, network, scores, batches, wish)
    chosen, small = done.plan, done.small
    recipe = recipe_of(model, chosen)
    device = device_of(model)
    report = measure_networks(
        model,
        small,
        chosen,
        scores,
        [on_device(batch, device) for batch in tests],
        loss,
        held_out=test is not None,
        steps=done.steps,
        drop=done.drop,
        time=time,
        runtime=runtime if is_installed(runtime) else EAGER,
    )
    return Result(small, chosen, scores, report, recipe)
