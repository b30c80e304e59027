"""The groups whose cut fails a trial, found by bisection."""

from collections.abc import Sequence

from secateur.coupling.group import Group
from secateur.coupling.network import Kept, Network
from secateur.coupling.regroup import freeze_groups
from secateur.surgery.diagnose import (
    ancestors,
    candidate_groups,
    same_class_groups,
)
from secateur.surgery.trial_cut import TrialCutter
from secateur.surgery.trial_failures import Failure
from secateur.surgery.trial_shares import draw_means


def freeze_failing_groups(trials: TrialCutter, network: Network, shares: Kept, failure: Failure) -> Network:
    """Freeze the groups that fail alone where the failure was, and those with the same role elsewhere."""
    for path in ancestors(failure.path):
        near_groups = candidate_groups(network, path)
        other_shares = {
            name: kept for name, kept in shares.items() if name not in {group.name for group in near_groups}
        }
        if near_groups and trials.passes(network, other_shares, failure):
            culprits = failing_groups(trials, network, near_groups, shares, failure) or near_groups
            like = [
                same_role for group in culprits for same_role in same_class_groups(trials.model, network, path, group)
            ]
            return freeze_groups(network, {group.name: failure.reason for group in (*culprits, *like)})
    return freeze_groups(network, bisect_failures(trials, network, network.groups, shares))


def failing_groups(
    trials: TrialCutter, network: Network, groups: Sequence[Group], shares: Kept, failure: Failure
) -> list[Group]:
    """Return the groups that fail alone where the failure was."""
    return [group for group in groups if not trials.passes(network, {group.name: shares[group.name]}, failure)]


def bisect_failures(trials: TrialCutter, network: Network, groups: Sequence[Group], shares: Kept) -> dict[str, str]:
    """Find the groups that fail by bisection; groups that fail only together are all returned."""
    failure = trials.run(network, {group.name: shares[group.name] for group in groups}, draw_means(network))
    if failure is None or not groups:
        return {}
    if len(groups) == 1:
        return {groups[0].name: failure.reason}
    half = len(groups) // 2
    culprits = bisect_failures(trials, network, groups[:half], shares) | bisect_failures(
        trials, network, groups[half:], shares
    )
    return culprits or {group.name: failure.reason for group in groups}
