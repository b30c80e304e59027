"""`reachable`: the budgets that can be met, before anything is scored."""

from collections.abc import Mapping, Sequence

import torch

from secateur.allocation.budget import COUNTED, parse_keep
from secateur.allocation.build_sequence import build_sequence
from secateur.allocation.fixed_sizes import fixed_units_without_scores
from secateur.allocation.remaining_fractions import fractions, fractions_of
from secateur.allocation.removal_sequence import RemovalSequence
from secateur.allocation.tied_groups import check_even, tie_groups
from secateur.coupling.effective_macs import effective_macs
from secateur.coupling.group import Group
from secateur.coupling.group_sizes import Sizes
from secateur.coupling.network import Kept, Network
from secateur.entry import entry_point
from secateur.evaluation.channel_steps import AUTO, channel_step
from secateur.importance.scores import GroupScores, Scores
from secateur.utils.text_table import align_columns

FRACTIONS = (1.0, 0.9, 0.75, 0.5, 0.35, 0.25, 0.1, 0.0)


def unscored_sequence(
    network: Network, groups: Sequence[Group], round_to: int, floor: float, fixed_groups: Kept | None = None
) -> RemovalSequence:
    """Build a sequence that removes the same fraction of every one of these groups, whichever units they are."""
    remaining_groups = [group for group in groups if group.name not in (fixed_groups or {})]
    scores = {group.name: GroupScores.exact(torch.arange(group.size)) for group in remaining_groups}
    tied_network = tie_groups(network, Scores(scores, "order", 0, {}, ""))
    return build_sequence(
        tied_network.network, tied_network.scores, "uniform", round_to, floor, fixed_groups=fixed_groups
    )


def check_reachable(
    network: Network,
    groups: Sequence[Group],
    keep: Mapping[str, float | str],
    round_to: int,
    floor: float,
    sizes: Sizes | None = None,
) -> None:
    """Check that a budget can be met, whatever the scores will be.

    Raises:
        SecateurError: it can't, or a group can't have a size that is given.
    """
    fixed_groups = fixed_units_without_scores(network, sizes or {}, round_to, floor)
    check_even(network, fixed_groups)
    budget = fractions_of(network, parse_keep(keep)) if keep else {}
    counted_budget = {unit: value for unit, value in budget.items() if unit in COUNTED}
    unscored_sequence(network, groups, round_to, floor, fixed_groups).fewest_steps_within(counted_budget)


@entry_point
def reachable(network: Network, *, round_to: int = 1, floor: float = 1, target: str = AUTO) -> str:
    """Return a table of the budgets that can be met by removing the same fraction of every group.

    The last column counts channels up to multiples of what the target's kernels work on at once.

    Args:
        network: the traced network.
        round_to: numbers of units are multiples of this.
        floor: the fewest units that a group keeps; below 1 a fraction of the group.
        target: the device, as `plan` takes it.

    Examples:
        >>> import torch, secateur as sc
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
        >>> print(sc.reachable(sc.trace(model, torch.randn(2, 4)), target="cuda"))
        of units  params    MACs   bytes  MACs in 8s
          100.0%  100.0%  100.0%  100.0%      100.0%
           87.5%   87.9%   87.5%   87.9%      100.0%
        ...
    """
    return "\n".join(align_columns(reachable_rows(network, round_to, floor, target), frozenset()))


def reachable_rows(network: Network, round_to: int = 1, floor: float = 1, target: str = AUTO) -> list[list[str]]:
    """Return the rows of the table of `reachable`, the header first."""
    sequence = unscored_sequence(network, network.groups, round_to, floor)
    step = channel_step(target, network.device)
    rows = [["of units", "params", "MACs", "bytes", *([f"MACs in {step.size}s"] if step.size > 1 else [])]]
    for fraction in FRACTIONS:
        kept = sequence.kept(round(len(sequence.order) * (1 - fraction)))
        remaining = fractions(network, kept, network.cost(kept), ["units", "params", "macs", "bytes"], None)
        effective = effective_macs(network, kept, step.size)
        shares = [*remaining.values(), *([effective.kept / max(effective.dense, 1)] if step.size > 1 else [])]
        rows.append([f"{value:.1%}" for value in shares])
    return rows
