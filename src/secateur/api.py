"""The whole way in one call: trace, score, plan, cut, repair, and a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.budget.keep import parse_keep
from secateur.budget.plan import Plan, check_reachable, plan
from secateur.data import as_batches, device_of, example_batches, on_device
from secateur.errors import TraceError
from secateur.files import text_writer, write_whole
from secateur.importance.losses import Loss
from secateur.importance.registry import Criterion, find_criterion
from secateur.importance.score import score
from secateur.importance.scores import Scores
from secateur.network.export import export_first
from secateur.network.trace import trace_groups
from secateur.network.units import Network
from secateur.recovery.accept import repair_if_nearer
from secateur.recovery.repair import find_repair
from secateur.report.measure import measure
from secateur.report.results import Report
from secateur.storage import model_writers, shapes_of
from secateur.surgery.cut import cut
from secateur.surgery.recipe import Recipe, make_recipe
from secateur.surgery.trial import settle


@dataclass(frozen=True, eq=False)
class Result:
    """What `prune` gives: the small model, the plan and scores that led to it, and the report."""

    model: nn.Module
    plan: Plan
    scores: Scores
    report: Report
    recipe: Recipe

    def save(self, folder: str | Path) -> None:
        """Write recipe.json, weights.safetensors, scores.safetensors, report.json and report.html.

        Raises:
            StorageError: they can't be written; files that were there before are as they were.
        """
        folder = Path(folder)
        writers = model_writers(folder, self.model, self.recipe, shapes_of(self.plan.network.tensors))
        writers[folder / "scores.safetensors"] = self.scores.writer()
        writers[folder / "report.json"] = text_writer(self.report.to_json())
        writers[folder / "report.html"] = text_writer(self.report.to_html())
        write_whole(writers)


def trace(model: nn.Module, example_inputs: Any) -> Network:
    """Find out what can be cut in a model.

    The model is exported once, its units are found by label tracing, and a copy loses some of every group for trial;
    what can't be cut for real is frozen, and `print(network)` says why.

    Args:
        model: any module that `torch.export` can export.
        example_inputs: its input, a tuple of its inputs, a dict of them, or batches of data; one or two examples are
            enough.

    Returns:
        The network: its groups of units, what they own, what they cost, and what is frozen.

    Raises:
        TraceError: the model can't be exported.
        DataError: the model refuses the example.

    Example:
        >>> import torch, secateur as sc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> network = sc.trace(model, torch.randn(2, 4))
        >>> [(group.name, group.size) for group in network.groups]
        [('0', 8)]
    """
    if not isinstance(model, nn.Module):
        raise TraceError(f"model is a {type(model).__name__}, not a torch.nn.Module; wrap the function in a module")
    with torch.random.fork_rng(devices=[]):
        program, example = export_first(model, example_batches(example_inputs, device_of(model)))
        return settle(model, trace_groups(model, example, program))


def prune(
    model: nn.Module,
    data: Any,
    keep: Mapping[str, float],
    by: str | Criterion = "shapley",
    *,
    test: Any = None,
    loss: Loss | None = None,
    removal: str = "mean",
    allocation: str = "uniform",
    round_to: int = 1,
    floor: float = 1,
    repair: str | None = "refit",
    only: str | Sequence[str] | None = None,
    skip: str | Sequence[str] | None = None,
    seed: int = 0,
    progress: bool = True,
    **options: Any,
) -> Result:
    """Trace, score, plan, cut and repair a model, and measure what became of it.

    Args:
        model: the trained model; it is left as it is.
        data: a few hundred examples, with or without labels, as `score` takes them.
        keep: what is left, as fractions: `{"macs": 0.5}`, "params", "bytes" or "units".
        by: the criterion.
        test: other examples to measure on; by default those of `data`, and the report says so.
        loss, removal, only, skip, seed, progress, options: as `score` takes them.
        allocation, round_to, floor: as `plan` takes them.
        repair: how the cut model is mended, as `repair` takes it, if that brings it nearer to the dense one on examples
            held out for that; None for not at all.

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
    parse_keep(keep)
    find_criterion(by)
    if repair is not None:
        find_repair(repair)
    with torch.random.fork_rng(devices=[]):
        batches = as_batches(data)
        tests = batches if test is None else as_batches(test)
    network = trace(model, batches)
    if not network.groups:
        raise TraceError(f"nothing in this network can be cut\n{network}")
    check_reachable(network, network.select(only, skip), keep, round_to, floor)
    scores = score(
        network,
        batches,
        by,
        loss=loss,
        removal=removal,
        only=only,
        skip=skip,
        seed=seed,
        progress=progress,
        **options,
    )
    chosen = plan(network, scores, keep, allocation=allocation, round_to=round_to, floor=floor)
    small = cut(model, chosen)
    with torch.random.fork_rng(devices=[]):
        mended = repair is not None and repair_if_nearer(small, model, chosen, batches, repair)
    recipe = make_recipe(model, network, chosen.kept, folds=bool(chosen.means))
    device = device_of(model)
    with torch.random.fork_rng(devices=[]):
        report = measure(
            model,
            small,
            chosen,
            scores,
            [on_device(batch, device) for batch in tests],
            loss,
            held_out=test is not None,
            repair=repair,
            mended=mended,
        )
    return Result(small, chosen, scores, report, recipe)
