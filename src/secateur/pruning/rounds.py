"""Scores in rounds: the network is scored, pruned a little and refitted, and scored again."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import nn

from secateur.allocation.budget import QUALITY_BOUNDS, TIMES
from secateur.allocation.config import PruneConfig
from secateur.allocation.fixed_sizes import fixed_units, sizes_in_round
from secateur.allocation.plan_sizes import Allocation, SizeRules, plan_tied_sizes
from secateur.allocation.remaining_fractions import fractions_of
from secateur.coupling.network import Network
from secateur.coupling.plan import Budget, Plan
from secateur.data.batch import Batch
from secateur.errors import BudgetError, NameMatchError, TraceError
from secateur.evaluation.calibration import Calibration
from secateur.importance.scores import GroupScores, Scores
from secateur.options.table import check_option
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.paired_run import PairedExecution
from secateur.recovery.refit import refit
from secateur.surgery.cut import cut_with_recipe
from secateur.utils.collected_warnings import own_warnings_dropped
from secateur.utils.progress import track


def check_rounds(rounds: int, keep: Budget) -> None:
    """Check a number of rounds.

    Raises:
        BudgetError: it is no whole number of rounds from 1 up, or the budget can't be divided among them.
    """
    check_option("rounds", rounds)
    if rounds > 1 and (set(keep) & {*QUALITY_BOUNDS, *TIMES}):
        raise BudgetError(f"rounds={rounds} needs a budget that can be divided, in macs, params, bytes or units")


def score_iteratively(
    model: nn.Module,
    calibration: Calibration,
    score_network: Callable[[Network], Scores],
    keep: Budget,
    config: PruneConfig,
    trace_model: Callable[[nn.Module], Network],
) -> Scores:
    """Score in rounds, each on a network from which the first units are removed, and which is refitted.

    Every round keeps the same fraction of what the one before kept.

    Args:
        model: the dense model.
        calibration: its trace, and the examples to refit with.
        score_network: scores a network.
        keep: the budget.
        config: the settings, of which `rounds` and `sizes` count here.
        trace_model: traces a smaller model.
    """
    network, rounds, sizes = calibration.network, config.rounds, config.sizes or {}
    scores, limits = score_network(network), fractions_of(network, keep)
    for number in track(range(1, rounds), "rounds of scoring"):
        budget = {unit: value ** (number / rounds) for unit, value in limits.items()}
        fixed_groups = fixed_units(network, scores, sizes_in_round(network, sizes, number / rounds), 1, 1)
        plan = plan_tied_sizes(network, scores, budget, Allocation(("uniform",)), SizeRules(fixed_groups=fixed_groups))
        small = _refitted_cut(model, plan, calibration.microbatches)
        try:
            later = score_network(trace_model(small))
        except (NameMatchError, TraceError):  # a group is down to what can't be cut any more
            break
        scores = merge_scores(scores, plan, later)
    return scores


def _refitted_cut(model: nn.Module, plan: Plan, microbatches: Sequence[Batch]) -> nn.Module:
    cut_model = cut_with_recipe(model, plan)
    cut_network = EmbeddedPrunedNetwork.of(cut_model.model, plan.network, cut_model.recipe)
    with torch.no_grad(), torch.random.fork_rng(devices=[]), own_warnings_dropped():
        refit(PairedExecution(cut_network, microbatches))
        cut_network.write(cut_model.model)
    return cut_model.model


def merge_scores(earlier: Scores, plan: Plan, later: Scores) -> Scores:
    """Merge scores: earlier ones for the units that a plan removed; above them, later ones for those that it kept."""
    groups = {}
    for name in earlier:
        values, kept = earlier[name].values.clone(), plan.kept[name]
        if name in later and len(later[name].values) == len(kept) < len(values):
            is_removed = torch.ones(len(values), dtype=torch.bool).index_fill(0, kept, False)
            new_values = later[name].values
            values[kept] = values[is_removed].max() + new_values - new_values.min().clamp_max(0)
        groups[name] = GroupScores.exact(values)
    return replace(earlier, groups=groups, note=f"{earlier.note.removesuffix(', in rounds')}, in rounds", of="")
