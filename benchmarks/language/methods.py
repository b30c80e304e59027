"""Secateur and the published methods, as a score, an allocation and a repair each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

import secateur as sc
from language import peers
from language.subject import LanguageSubject, Row, measure_quality, peak_bytes, seconds_on


@dataclass(frozen=True)
class Method:
    """A method of pruning.

    Args:
        by: the name of the criterion, or a function that returns the criterion of a subject.
        allocation: the allocation of `plan`; None for several that are tried on the calibration sequences.
        ablation: the replacement of removed units before the repair.
        blocks: whether whole blocks are its units.
        whole: returns patterns of the groups that lose no unit.
        repair: the repair of the second row.
    """

    by: str | Callable[[LanguageSubject], peers.Scorer]
    allocation: str | tuple[str, ...] | None = "uniform"
    ablation: str = "zero"
    blocks: bool = False
    whole: Callable[[LanguageSubject], list[str]] | None = None
    repair: Sequence[str] = ("refit",)


def attention(subject: LanguageSubject) -> list[str]:
    """Patterns of all heads."""
    return ["*.self_attn.*"]


METHODS = {
    "secateur": Method("obs", ("uniform", "loss"), "mean"),
    "secateur, equal shares": Method("obs", "uniform", "mean"),
    "secateur, by loss": Method("obs", "loss", "mean"),
    "secateur, neurons": Method("obs", ("uniform", "loss"), "mean", whole=attention),
    "secateur, adapt": Method("obs", ("uniform", "loss"), "mean", repair=("refit", "adapt")),
    "FLAP": Method(peers.flap, "raw", "mean"),
    "Wanda-sp": Method(peers.wanda),
    "LLM-Pruner": Method(peers.llm_pruner, whole=peers.whole_blocks),
    "magnitude": Method(peers.magnitude),
    "ShortGPT": Method(peers.short_gpt, blocks=True),
}


WHOLE_CALLS: dict[str, dict[str, Any]] = {
    "prune": {"repair": "refit"},
    "prune, two rounds": {"repair": "refit", "rounds": 2},
    "prune, default repair": {},
}  # options of `prune`, which scores, plans, cuts and repairs in one call


def prune_whole(subject: LanguageSubject, removed: float, options: dict[str, Any]) -> Row:
    """Run `prune` with its own defaults and some options, and measure the network."""
    start = seconds_on(subject.device)
    result = sc.prune(
        subject.model, subject.data, subject.budget(removed), kinds=("neurons", "heads"), progress=False, **options
    )
    seconds = seconds_on(subject.device) - start
    repair = options.get("repair", "default")
    return {"repair": repair, "seconds": seconds, **_figures(result.model, result.plan, subject)}


def score(method: Method, subject: LanguageSubject, file: Path) -> Row:
    """Score the units, and save the scores to a file."""
    start = seconds_on(subject.device)
    by = method.by if isinstance(method.by, str) else method.by(subject)
    skip = None if method.whole is None else method.whole(subject)
    scores = sc.score(
        network_of(method, subject), subject.data, by=by, ablation=method.ablation, skip=skip, progress=False
    )
    seconds = seconds_on(subject.device) - start
    scores.save(file)
    return {"score_seconds": seconds, "peak_bytes": peak_bytes(subject.device)}


def prune(method: Method, subject: LanguageSubject, removed: float, file: Path) -> list[Row]:
    """Plan and cut by saved scores, and measure the network before and after the repair."""
    scores, network = sc.Scores.load(file), network_of(method, subject)
    start = seconds_on(subject.device)
    trials = {"data": subject.data} if method.allocation is None else {}
    plan = sc.plan(
        network, scores, subject.budget(removed), allocation=method.allocation, floor=0, progress=False, **trials
    )
    small = sc.cut(subject.model, plan)
    untuned = {"repair": "none", "seconds": seconds_on(subject.device) - start, **_figures(small, plan, subject)}
    start = seconds_on(subject.device)
    sc.repair(small, subject.model, plan, subject.data, method.repair, progress=False)
    seconds = untuned["seconds"] + seconds_on(subject.device) - start
    repaired = {"repair": ", ".join(method.repair), "seconds": seconds, **_figures(small, plan, subject)}
    return [untuned, repaired]


def network_of(method: Method, subject: LanguageSubject) -> sc.Network:
    """The trace with the method's units."""
    return subject.blocks if method.blocks else subject.units


def _figures(small: nn.Module, plan: sc.Plan, subject: LanguageSubject) -> Row:
    removed = (plan.dense.params - plan.cost.params) / subject.block_parameters
    peak = peak_bytes(subject.device)
    return {"removed": removed, "peak_bytes": peak, **measure_quality(small, subject.windows)}
