"""The whole way in one call: trace, score, plan, cut, repair, and a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import fx, nn

from secateur.allocation.budget import QUALITY_BOUNDS, TIMES, parse_keep
from secateur.allocation.channel_steps import AUTO, channel_step
from secateur.allocation.plan import Plan, check_reachable
from secateur.coupling.kinds import BLOCKS, BY_WIDTH, USUAL, wanted_kinds
from secateur.coupling.network import Network
from secateur.coupling.new_biases import without_new_biases
from secateur.coupling.other_sizes import with_other_sizes
from secateur.coupling.regroup import freeze_groups
from secateur.coupling.residual_blocks import find_blocks, with_blocks
from secateur.coupling.trace_groups import trace_groups
from secateur.data.batch import device_of, example_batches, floating_type, on_device
from secateur.entry import entry_point, entry_point_with
from secateur.errors import TraceError
from secateur.evaluation.losses import Loss
from secateur.evaluation.metrics import measure_networks
from secateur.evaluation.runtimes import EAGER, check_runtime, is_installed, runtime_of
from secateur.files import text_writer
from secateur.graph.example_axis import is_one_example
from secateur.graph.export import export_first, export_fresh
from secateur.graph.parametrizations import bake_parametrizations
from secateur.graph.supported_models import unsupported_reason
from secateur.importance.context import as_examples
from secateur.importance.data_checks import check_model_values, check_program_sizes, checked_data, taken_examples
from secateur.importance.registry import Criterion
from secateur.importance.score import READ_BY_CRITERIA, check_scoring, score
from secateur.importance.scores import Scores
from secateur.pipeline import PruneConfig, check_allocation, check_rounds, plan_cut_repair, score_iteratively
from secateur.recovery.chain import DEFAULT as DEFAULT_REPAIR
from secateur.recovery.chain import Tuning
from secateur.recovery.repair import How, check_options, resolve_repairs
from secateur.report.report import Report
from secateur.surgery.hf_export import save_pretrained
from secateur.surgery.program_surgery import as_module
from secateur.surgery.recipe import Recipe, recipe_of
from secateur.surgery.storage import save_with
from secateur.surgery.validate import removable_blocks, validate_blocks, validate_groups
from secateur.surgery.verify import check_same, compare_outputs
from secateur.utils.time_budget import TimeBudget


@dataclass(frozen=True, eq=False)
class Result:
    """What `prune` gives: the small model, the plan and scores that led to it, and the report."""

    model: nn.Module
    plan: Plan
    scores: Scores
    report: Report
    recipe: Recipe

    def save(self, folder: str | Path) -> None:
        """Write recipe.json, weights.safetensors, scores.safetensors, and report.json, .html and .txt.

        A program that was cut is written as model.pt2, too, for use without Secateur; `load` does not read it.

        Raises:
            StorageError: they can't be written; files that were there before are as they were.
        """
        companions = {
            "scores.safetensors": self.scores.writer(),
            "report.json": text_writer(self.report.to_json()),
            "report.html": text_writer(self.report.to_html()),
            "report.txt": text_writer(f"{self.report}\n"),
        }
        save_with(self.model, Path(folder), companions)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a model of the transformers library so that its `from_pretrained` loads it, without Secateur.

        Raises:
            StorageError: it is not such a model, or no configuration says its shape; `save` always can.
        """
        save_pretrained(self.model, self.plan, Path(folder))


@entry_point
def trace(
    model: nn.Module,
    example_inputs: Any,
    *,
    kinds: str | Sequence[str] | None = None,
    as_program: bool = False,
    new_biases: bool = True,
) -> Network:
    """Find out what can be cut in a model.

    The model is exported once, its units are found by label tracing, and a copy loses some of every group for trial;
    what can't be cut for real is frozen, and `print(network)` says why.

    Args:
        model: any module that `torch.export` can export.
        example_inputs: its input, a tuple of its inputs, a dict of them, or batches of data; one or two examples are
            enough.
        kinds: which units may be cut: "channels" of convolutions, "neurons" of linear layers, "residual" for the width
            of residual streams, "heads" of attention, "experts" of a mixture; all of these by default. In place of
            heads "head width", the same places of all heads. "blocks", by itself or beside others: the blocks of a
            residual network, of which the skip alone remains.
        as_program: cut the exported program in place of the model's own code, which may not be able to say the cut
            shape: more can be cut, and what comes back is a module that runs the cut program, not the model's class.
        new_biases: whether layers without a bias may get one for the means of removed units. `plan.new_biases` names
            them; code that does not expect them drops them (converters, formats made from a configuration). Layers
            that a class other than torch's own wraps (adapters) never get one.

    Returns:
        The network: its groups of units, what they own, what they cost, and what is frozen.

    Raises:
        TraceError: the model can't be exported, or is of a kind whose parameters can't be cut: lazy modules that saw no
            data, TorchScript, quantized, offloaded.
        DataError: the model refuses the example.

    Example:
        >>> import torch, secateur as sc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> network = sc.trace(model, torch.randn(2, 4))
        >>> [(group.name, group.size) for group in network.groups]
        [('0', 8)]
    """
    reason = unsupported_reason(model)
    if reason is not None:
        raise TraceError(reason)
    wanted = wanted_kinds(kinds, as_program)
    check_model_values(model)
    plain = bake_parametrizations(model)
    examples = taken_examples(model, example_batches(example_inputs, device_of(model), floating_type(model)))
    if plain is not model:
        check_same(model, plain, examples[-1])
    program, example = export_first(plain, examples)
    if is_one_example(program, example):
        example = replace(examples[-1], is_one_example=True)
        program = export_fresh(plain, example)
    program = with_other_sizes(program, plain, example, compare_outputs)
    if not as_program and not isinstance(model, fx.GraphModule):
        network = trace_groups(plain, example, program, BY_WIDTH in wanted)
        return _settled(plain, network if new_biases else without_new_biases(network), wanted)
    module = as_module(program)
    network = trace_groups(module, example, program, BY_WIDTH in wanted)
    return _settled(module, replace(network, as_program=True, title=type(model).__name__), wanted)


def _kinds_for(
    keep: Mapping[str, float | str], kinds: str | Sequence[str] | None, is_program: bool
) -> str | Sequence[str] | None:
    """The kinds that were asked for; by default blocks beside the usual ones where the budget is in time."""
    return (*USUAL, BLOCKS) if kinds is None and set(keep) & set(TIMES) and not is_program else kinds


def _settled(model: nn.Module, network: Network, wanted: frozenset[str]) -> Network:
    if BLOCKS in wanted and (network.as_program or len(wanted) == 1):
        return validate_blocks(model, network, list(find_blocks(network.program)))
    others = [group for group in network.groups if group.kind not in wanted]
    settled = validate_groups(
        model, freeze_groups(network, {group.name: f"{group.kind} were not asked for" for group in others})
    )
    return with_blocks(settled, removable_blocks(model, network)) if BLOCKS in wanted else settled


@entry_point_with(*READ_BY_CRITERIA)
def prune(
    model: nn.Module,
    data: Any,
    keep: Mapping[str, float | str],
    by: str | Criterion = "obs",
    *,
    test: Any = None,
    loss: Loss | None = None,
    removal: str = "mean",
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
        loss, removal, only, skip, seed, progress, options: as `score` takes them.
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
        score, data=batches, by=by, loss=loss, removal=removal, only=only, skip=skip, seed=seed, progress=progress,
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
