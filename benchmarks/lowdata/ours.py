"""Secateur: rankings with and without repair, at several budgets."""

import time
import warnings
from collections.abc import Iterator
from dataclasses import replace

import torch

import secateur as sc
from lowdata.subjects import Augment, Subject
from secateur.allocation.candidates import candidate_allocations
from secateur.allocation.search import PlanSearch
from secateur.allocation.simulate import PlanSimulator
from secateur.data.conversion import as_batch, as_batches
from secateur.evaluation.latency_table import quick_multiple
from secateur.evaluation.timing import Stopwatch
from secateur.importance.context import split_microbatches
from secateur.importance.scores import GroupScores

BUDGETS = (0.75, 0.5, 0.35, 0.25, 0.12)
FEWER = (0.5, 0.25, 0.12)
CHAINS = (["refit"], ["refit", "adapt"], ["refit", "adapt", "tune"])
Row = dict[str, object]


def default(subject: Subject, budgets: tuple[float, ...] = BUDGETS, examples: int = 256) -> Iterator[Row]:
    """What `prune` does, step by step so that scores serve all budgets; then `tune`."""
    model, data = subject.model(), subject.calibration(examples)
    start = time.perf_counter()
    network = sc.trace(model, data[0][:2])
    scores = sc.score(network, data, by="obs", progress=False)
    rehearsal = PlanSimulator(network, split_microbatches(as_batches(data), torch.device("cpu")))
    ways = candidate_allocations(rehearsal, scores, False)
    shared = time.perf_counter() - start
    for keep in budgets:
        start = time.perf_counter()
        plan, _ = PlanSearch(rehearsal, scores, None, 1, 1, ways).best({"macs": keep})
        chosen = time.perf_counter() - start + shared
        yield row(subject, "obs", "none", keep, plan, sc.cut(model, plan), chosen, examples)
        chains = CHAINS if examples == 256 and keep in FEWER else CHAINS[1:2]
        for chain in chains:  # each anew: what is held out must not have been seen by an earlier step
            start = time.perf_counter()
            options = {"augment": Augment()} if "tune" in chain else {}
            small = sc.repair(sc.cut(model, plan), model, plan, data, chain, progress=False, **options)
            spent = chosen + time.perf_counter() - start
            found = row(subject, "obs", ", ".join(chain), keep, plan, small, spent, examples)
            yield found | (latencies(model, small, data) if chain == CHAINS[1] else {})
        if examples == 256 and subject.seed == 0:
            multiple = quick_multiple(network)
            quick, _ = PlanSearch(rehearsal, scores, None, multiple, 1, ways).best({"macs": keep})
            rounded = sc.repair(sc.cut(model, quick), model, quick, data, CHAINS[1], progress=False)
            found = row(subject, f"obs, round_to={multiple}", ", ".join(CHAINS[1]), keep, quick, rounded, 0.0)
            yield found | latencies(model, rounded, data)


def rankings(subject: Subject) -> Iterator[Row]:
    """Which units go matters after the refit, too: every ranking with the same share of each group.

    The game whose absent units are predicted from the others takes most of an hour in the wider networks, so it is
    played on the residual one alone.
    """
    model, data = subject.model(), subject.calibration()
    network = sc.trace(model, data[0][:2])
    options = {"shapley, refit removal": {"ablation": "impute"}, "shapley, paper's protocol": {"protocol": "paper"}}
    names = (
        "obs", "shapley", "obs and shapley", "shapley, refit removal", "shapley, paper's protocol", "taylor", "apoz",
        "l2", "random",
    )  # fmt: skip
    for name in names:
        if "refit" in name and subject.name != "residual":
            continue
        start = time.perf_counter()
        each = [
            sc.score(network, data, by=by.split(",")[0], progress=False, **options.get(by, {}))
            for by in name.split(" and ")
        ]
        scores = each[0] if len(each) == 1 else by_rank(each)
        spent = time.perf_counter() - start
        for keep in FEWER:
            plan = sc.plan(network, scores, {"macs": keep})
            yield row(subject, f"{name} (uniform)", "none", keep, plan, sc.cut(model, plan), spent)
            start = time.perf_counter()
            small = sc.repair(sc.cut(model, plan), model, plan, data, CHAINS[1], progress=False)
            seconds = spent + time.perf_counter() - start
            yield row(subject, f"{name} (uniform)", ", ".join(CHAINS[1]), keep, plan, small, seconds)


def by_rank(each: list[sc.Scores]) -> sc.Scores:
    """Rankings put together: by the sum of a unit's ranks in its group."""
    ranks = {name: sum(scores[name].values.argsort().argsort().double() for scores in each) for name in each[0]}
    return replace(each[0], groups={name: GroupScores.exact(values) for name, values in ranks.items()}, of="")


def row(
    subject: Subject, method: str, repair: str, keep: float, plan: sc.Plan, small: torch.nn.Module, seconds: float,
    examples: int = 256,
) -> Row:  # fmt: skip
    return {
        "network": subject.name,
        "seed": subject.seed,
        "method": method,
        "repair": repair,
        "keep": keep,
        "macs": plan.cost.macs / plan.dense.macs,
        "accuracy": subject.accuracy(small),
        "seconds": seconds,
        "examples": examples,
    }


def latencies(model: torch.nn.Module, small: torch.nn.Module, data: list[torch.Tensor]) -> Row:
    """The part of the dense network's time that is left, for one image and for 32."""
    return {f"latency {size}": Stopwatch(model, as_batch(data[0][:size])).left(small) for size in (1, 32)}


warnings.simplefilter("ignore")
