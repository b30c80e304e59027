"""Secateur: rankings with and without repair, at several budgets."""

import time
import warnings
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch.utils.benchmark import Timer

import secateur as sc
from lowdata.subjects import Augment, FashionSubject

BUDGETS = (0.75, 0.5, 0.35, 0.25, 0.12)
MULTIPLE = 16  # channels in a vector of AVX-512
FEWER = (0.5, 0.25, 0.12)
ROUNDS = 15
CHAINS = (["refit"], ["refit", "adapt"], ["refit", "adapt", "tune"])
Row = dict[str, object]


def default_rows(subject: FashionSubject, budgets: tuple[float, ...] = BUDGETS, examples: int = 256) -> Iterator[Row]:
    """Yield the rows of the default method: the steps of `prune`, with the same scores for all budgets, then `tune`.

    Args:
        subject: the network.
        budgets: fractions of the MACs.
        examples: the number of images to prune with.
    """
    model, data = subject.model(), subject.calibration(examples)
    start = time.perf_counter()
    network = sc.trace(model, data[0][:2])
    scores = sc.score(network, data, by="obs", progress=False)
    score_seconds = time.perf_counter() - start
    for keep in budgets:
        start = time.perf_counter()
        plan = sc.plan(network, scores, {"macs": keep}, data=data, progress=False)
        plan_seconds = time.perf_counter() - start + score_seconds
        yield lowdata_row(subject, "obs", "none", keep, plan, sc.cut(model, plan), plan_seconds, examples)
        chains = CHAINS if examples == 256 and keep in FEWER else CHAINS[1:2]
        for chain in chains:  # each from the cut network: an earlier chain would have seen the hold-out
            start = time.perf_counter()
            options = {"augment": Augment()} if "tune" in chain else {}
            small = sc.repair(sc.cut(model, plan), model, plan, data, chain, progress=False, **options)
            seconds = plan_seconds + time.perf_counter() - start
            measured = lowdata_row(subject, "obs", ", ".join(chain), keep, plan, small, seconds, examples)
            yield measured | (latencies(model, small, data) if chain == CHAINS[1] else {})
        if examples == 256 and subject.seed == 0:
            rounded = sc.plan(network, scores, {"macs": keep}, data=data, round_to=MULTIPLE, progress=False)
            small = sc.repair(sc.cut(model, rounded), model, rounded, data, CHAINS[1], progress=False)
            measures = lowdata_row(
                subject, f"obs, round_to={MULTIPLE}", ", ".join(CHAINS[1]), keep, rounded, small, 0.0
            )
            yield measures | latencies(model, small, data)


def ranking_rows(subject: FashionSubject) -> Iterator[Row]:
    """Yield the rows of every criterion under the same allocation, which removes the same share of each group.

    The game in which absent units are predicted from the others takes most of an hour in the wider networks, so it is
    measured on the residual one alone.
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
        rankings = [
            sc.score(network, data, by=by.split(",")[0], progress=False, **options.get(by, {}))
            for by in name.split(" and ")
        ]
        scores = rankings[0] if len(rankings) == 1 else by_rank(rankings)
        score_seconds = time.perf_counter() - start
        for keep in FEWER:
            plan = sc.plan(network, scores, {"macs": keep})
            yield lowdata_row(subject, f"{name} (uniform)", "none", keep, plan, sc.cut(model, plan), score_seconds)
            start = time.perf_counter()
            small = sc.repair(sc.cut(model, plan), model, plan, data, CHAINS[1], progress=False)
            seconds = score_seconds + time.perf_counter() - start
            yield lowdata_row(subject, f"{name} (uniform)", ", ".join(CHAINS[1]), keep, plan, small, seconds)


def by_rank(rankings: list[sc.Scores]) -> sc.Scores:
    """Return the ranking by the sum of a unit's ranks in its group."""
    groups = {}
    for name, scores in rankings[0].items():
        ranks = torch.stack([ranking[name].values.argsort().argsort() for ranking in rankings])  # (rankings, units)
        groups[name] = replace(scores, values=ranks.sum(0).double(), per_example=None, samples=None)
    return replace(rankings[0], groups=groups, of="")


def lowdata_row(
    subject: FashionSubject, method: str, repair: str, keep: float, plan: sc.Plan, small: torch.nn.Module,
    seconds: float, examples: int = 256,
) -> Row:  # fmt: skip
    """Return the row of one small network."""
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
    """Return the small network's fraction of the dense network's time, for one image and for 32, timed in turn."""
    for network in (model, small):
        network.eval()
    return {f"latency {size}": time_ratio(small, model, data[0][:size]) for size in (1, 32)}


@torch.no_grad()
def time_ratio(small: torch.nn.Module, model: torch.nn.Module, x: torch.Tensor) -> float:
    """Return the ratio of the median times of two networks on one batch."""
    timers = [Timer("network(x)", globals={"network": network, "x": x}) for network in (small, model)]
    times = np.array([[timer.timeit(1).mean for timer in timers] for _ in range(1 + ROUNDS)])[1:]  # (rounds, networks)
    return float(np.median(times[:, 0]) / np.median(times[:, 1]))


warnings.simplefilter("ignore")
