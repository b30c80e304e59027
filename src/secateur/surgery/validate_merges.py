"""Trial cuts in which groups are merged, because the model's code derives one number from another."""

from collections.abc import Iterator, Sequence
from itertools import islice

from secateur.coupling.group import Group
from secateur.coupling.network import Network
from secateur.coupling.regroup import merge_groups
from secateur.surgery.culprits import failing_groups
from secateur.surgery.diagnose import (
    ancestors,
    candidate_groups,
    owned_axes,
    same_class_modules,
)
from secateur.surgery.trial_cut import TrialCutter
from secateur.surgery.trial_failures import Failure
from secateur.surgery.trial_shares import draw_shares

MOST_BUNDLES = 12


def merge_heads_with_width(trials: TrialCutter, network: Network, seed: int, failure: Failure) -> Network | None:
    """Return the network in which heads are merged with their share of the width."""
    tried_pairs: set[tuple[str, str]] = set()  # what holds a module has its pairs, too
    for path in ancestors(failure.path):
        culprits = failing_groups(trials, network, candidate_groups(network, path), draw_shares(network, seed), failure)
        for wide, narrow in islice(_head_width_pairs(culprits), MOST_BUNDLES):
            if (wide.name, narrow.name) in tried_pairs:
                continue
            tried_pairs.add((wide.name, narrow.name))
            candidate = merge_groups(network, wide, narrow)
            outcome = trials.run(candidate, draw_shares(candidate, seed), {})
            if outcome is None or outcome.progress > failure.progress:
                return _merge_in_class(trials, network, candidate, path, (wide, narrow))
    return None


def _merge_in_class(
    trials: TrialCutter, before: Network, network: Network, path: str, pair: tuple[Group, Group]
) -> Network:
    """Merge the groups with the same roles in other modules of the class."""
    for other_path in same_class_modules(trials.model, path):
        wide, narrow = (
            next(
                (
                    g
                    for g in before.groups
                    if owned_axes(g, other_path) and owned_axes(g, other_path) == owned_axes(group, path)
                ),
                None,
            )
            for group in pair
        )
        now = network.by_name.get(wide.name) if wide else None
        if (
            now
            and narrow
            and narrow.name in network.by_name
            and now.size % narrow.size == 0
            and now.name != narrow.name
        ):
            network = merge_groups(network, now, network.by_name[narrow.name])
    return network


def _head_width_pairs(near_groups: Sequence[Group]) -> Iterator[tuple[Group, Group]]:
    """Yield pairs of groups of which one could be cut with a share of the other: heads and a width."""
    for narrow in sorted(near_groups, key=lambda group: (group.kind not in ("heads", "bundles"), group.size)):
        wide = [group for group in near_groups if group is not narrow and group.size % narrow.size == 0]
        likely = sorted(wide, key=lambda group: (group.size == narrow.size, group.size))
        yield from ((group, narrow) for group in likely)
