"""`compare`: which criterion serves a network, measured on examples that no criterion saw."""

import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from secateur.allocation.budget import COUNTED, parse_keep
from secateur.allocation.plan import check_reachable, plan
from secateur.coupling.kinds import wanted_kinds
from secateur.coupling.network import Network
from secateur.data.batch import Batch, on_device
from secateur.entry import entry_point
from secateur.errors import BudgetError, DataError, NameMatchError, SecateurError, TraceError
from secateur.evaluation.holdout import split_holdout
from secateur.evaluation.losses import Loss
from secateur.evaluation.metrics import with_verdict
from secateur.importance.context import as_examples, network_microbatches
from secateur.importance.data_checks import check_program_sizes, checked_data
from secateur.importance.registry import Criterion, find_criterion
from secateur.importance.score import check_scoring, score
from secateur.importance.scores import Scores
from secateur.options import check_name, check_option, with_current_names
from secateur.pipeline import check_allocation
from secateur.recovery.repair import How, named_options, resolve_repairs
from secateur.recovery.repair import repair as repair_
from secateur.report.comparison import Comparison
from secateur.report.comparison_records import NO_REPAIR, ComparisonTrial, CriterionMetrics
from secateur.surgery.cut import cut
from secateur.tracing import trace

DEFAULT = ("obs", "shapley", "taylor-gates", "taylor", "sensitivity", "apoz", "fpgm", "l2", "random")
FRACTIONS = (0.75, 0.5, 0.25)
FEWEST = 8


@entry_point
def compare(
    model: nn.Module,
    data: Any,
    by: Sequence[str | Criterion] = DEFAULT,
    keep: Mapping[str, float | Sequence[float]] | None = None,
    *,
    test: Any = None,
    loss: Loss | None = None,
    ablation: str = "mean",
    allocation: str = "uniform",
    repair: How | None = "refit",
    only: str | Sequence[str] | None = None,
    skip: str | Sequence[str] | None = None,
    kinds: str | Sequence[str] | None = None,
    new_biases: bool = True,
    seed: int = 0,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    progress: bool = True,
) -> Comparison:
    """Rank, cut and repair a network by several criteria, and see which loses least on examples that none of them saw.

    Args:
        model: the trained model; it is left as it is.
        data: a few hundred examples, with or without labels, as `score` takes them. Unless `test` is given, a quarter
            of them is held out to judge by.
        by: names of criteria, or functions like them.
        keep: budgets, such as `{"macs": (0.75, 0.5, 0.25)}`, the default, or `{"params": 0.5}`.
        test: other examples to judge by.
        loss: as `score` takes it; by default the loss against the labels, or without any the divergence from the dense
            network's output.
        ablation, only, skip, seed: as `score` takes them.
        allocation: as `plan` takes it. With "uniform" every group keeps the same share, so that only the order within
            groups counts.
        repair: how the cut networks are mended, as `repair` takes it; both without and with it is judged. None for not
            at all.
        kinds, new_biases: as `trace` takes them.
        options: what `score` takes besides, by the name of the criterion: `{"shapley": {"ablation": "impute"}}`.
        progress: show a progress bar, on a terminal.

    Returns:
        What each criterion lost at each budget, how far they agree, and which one is recommended and why. A criterion
        that can't rank this network is named there with its reason.

    Raises:
        BudgetError: no budget, one that isn't counted (latency, bounds on the loss), or one that can't be reached.
        NameMatchError: a name is unknown, or there is none.
        SecateurError: of the kind that `trace` and `score` raise.

    Example:
        >>> import torch, secateur as sc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> found = sc.compare(model, torch.randn(64, 4), by=("obs", "l1"), keep={"macs": 0.5}, progress=False)
        >>> sorted({trial.by for trial in found.trials}), found.best("refit") in ("obs", "l1")
        (['l1', 'obs'], True)
    """
    budgets, criteria = _budgets({"macs": FRACTIONS} if keep is None else keep), _criteria(by)
    check_allocation(allocation)
    options = {
        name: with_current_names(entries) if isinstance(entries, Mapping) else entries
        for name, entries in (options or {}).items()
    }
    for name in options:
        check_name(name, criteria, "`compare` was given options for a criterion that is not compared:")
    for name, criterion in criteria.items():
        check_scoring(criterion, _without_shared(options.get(name, {})))
    wanted_kinds(kinds, False)
    if repair is not None:
        resolve_repairs(repair)
    batches, measured_on = checked_data(model, data, test, loss, list(criteria.values()))
    tests = None if test is None else measured_on
    network = trace(model, batches, kinds=kinds, new_biases=new_biases)
    batches, tests = as_examples(network, batches), None if tests is None else as_examples(network, tests)
    check_program_sizes(network, [*batches, *(tests or ())])
    if not network.groups:
        raise TraceError(f"nothing in this network can be cut\n{network}")
    for budget in budgets:
        check_reachable(network, network.select(only, skip), budget, 1, 1)
    fitted, held = (batches, tests) if tests is not None else _apart(network, batches)
    trying = _Trying(
        model, network, fitted, [on_device(each, network.device) for each in held], loss, allocation, repair
    )
    dense = CriterionMetrics.of(*trying.judged(model))
    trials: list[ComparisonTrial] = []
    ranked: dict[str, Scores] = {}
    refused: dict[str, str] = {}
    for name, criterion in tqdm(criteria.items(), desc="compare", disable=None if progress else True, leave=False):
        given = {"loss": loss, "ablation": ablation, "only": only, "skip": skip, "seed": seed, "progress": progress}
        start = time.perf_counter()
        try:
            ranked[name] = score(network, fitted, criterion, **{**given, **options.get(name, {})})
        except SecateurError as refusal:
            refused[name] = str(refusal)
            continue
        spent = time.perf_counter() - start
        for budget in budgets:
            trials += trying.cut(name, ranked[name], spent, budget)
    if not ranked:
        raise DataError("no criterion can rank this network:\n" + "\n".join(refused.values()))
    return Comparison(network.title, tuple(trials), ranked, refused, dense, test is not None)


SHARED = ("ablation",)  # options of `score` that all criteria take, and each may have for itself


def _without_shared(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that criteria read.

    Raises:
        OptionError: they are no dict.
        NameMatchError: the ablation is unknown.
    """
    check_option("options", options)
    if "ablation" in options:
        check_option("ablation", options["ablation"])
    return {name: value for name, value in options.items() if name not in SHARED}


@dataclass(frozen=True)
class _Trying:
    """What every trial has in common."""

    model: nn.Module
    network: Network
    fitted: Sequence[Batch]
    held: Sequence[Batch]
    loss: Loss | None
    allocation: str
    how: How | None

    def judged(self, small: nn.Module) -> tuple[Tensor, ...]:
        with torch.random.fork_rng(devices=[]):
            return with_verdict(small, self.model, self.held, self.loss)

    def cut(self, name: str, scores: Scores, seconds: float, budget: Mapping[str, float]) -> list[ComparisonTrial]:
        """One criterion at one budget: as it is, and mended."""
        chosen = plan(self.network, scores, budget, allocation=self.allocation)
        small = cut(self.model, chosen)
        left = chosen.cost.macs / max(chosen.dense.macs, 1)
        found = [
            ComparisonTrial(name, dict(budget), NO_REPAIR, left, seconds, CriterionMetrics.of(*self.judged(small)))
        ]
        if self.how is not None:
            with warnings.catch_warnings():  # what is lost on other examples is shown for every trial
                warnings.simplefilter("ignore", UserWarning)
                repair_(small, self.model, chosen, self.fitted, self.how, progress=False)
            found.append(
                ComparisonTrial(
                    name, dict(budget), named_options(self.how), left, seconds, CriterionMetrics.of(*self.judged(small))
                )
            )
        return found


def _budgets(keep: Mapping[str, float | Sequence[float]]) -> list[dict[str, float]]:
    """One budget for each fraction.

    Raises:
        BudgetError: there is none, or one that is not counted.
    """
    pairs = (
        [(unit, each) for unit, given in keep.items() for each in _several(given)] if isinstance(keep, Mapping) else []
    )
    if not pairs or any(unit not in COUNTED for unit, _ in pairs):
        raise BudgetError(f"keep={keep!r}: give fractions of {', '.join(COUNTED)}, such as {{'macs': (0.5, 0.25)}}")
    return [dict(parse_keep({unit: fraction})) for unit, fraction in pairs]


def _several(given: Any) -> Sequence[Any]:
    return given if isinstance(given, Sequence) and not isinstance(given, str) else [given]


def _criteria(by: Sequence[str | Criterion]) -> dict[str, str | Criterion]:
    """The criteria by their names.

    Raises:
        NameMatchError: there is none, or a name is unknown.
    """
    several = [by] if isinstance(by, str) or not isinstance(by, Iterable) else by
    found = {find_criterion(each)[0]: each for each in several}
    if not found:
        raise NameMatchError("by is empty; name criteria to compare, secateur.criteria() lists them")
    return found


def _apart(network: Network, batches: Sequence[Batch]) -> tuple[Sequence[Batch], Sequence[Batch]]:
    """A quarter of the examples to judge by.

    Raises:
        DataError: there are too few.
    """
    cells = network_microbatches(network, batches)
    if sum(cell.size or 1 for cell in cells) < FEWEST:
        raise DataError(f"fewer than {FEWEST} examples can't serve to rank and to judge; give more, or test=")
    return split_holdout(cells, network.program.batched is not None)
