"""Trial cuts with new values of attributes that count units."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from secateur.coupling.group import Group
from secateur.coupling.members import AttributeUpdate
from secateur.coupling.network import Kept, Network
from secateur.surgery.culprits import bisect_failures, failing_groups
from secateur.surgery.diagnose import (
    ancestors,
    candidate_groups,
    proposed_updates,
    reshapers,
    same_class_updates,
)
from secateur.surgery.trial_cut import TrialCutter
from secateur.surgery.trial_failures import Failure
from secateur.surgery.trial_shares import draw_shares

MOST_ATTRIBUTES = 48


DRAWS = 3


STEPS = (4, 8, 16)


def update_attributes(
    trials: TrialCutter, network: Network, shares: Kept, failure: Failure, paths: Sequence[str]
) -> Network | None:
    """Return the network with new values for attributes of these modules, if the trial gets further with them."""
    reads = trials.reads(network, shares) if paths else None
    for path in paths:
        for updates in proposed_updates(trials.model, network, path, reads):
            candidate = _with_updates(network, updates)
            if trials.passes(candidate, shares, failure) and not _is_chance(trials, candidate, shares, failure):
                updates = _necessary_updates(trials, network, shares, failure, updates)
                candidate = _with_updates(network, updates)
                current_keys = {update.key for update in candidate.attribute_updates}
                same_class = same_class_updates(trials.model, network, updates)
                return _with_updates(candidate, [update for update in same_class if update.key not in current_keys])
    return None


def _is_chance(trials: TrialCutter, network: Network, shares: Kept, failure: Failure) -> bool:
    """Return whether an update that helps one draw of shares does not help another."""
    for draw in range(1, DRAWS):
        other_shares = draw_shares(network, draw)
        again = trials.run(network, {name: other_shares[name] for name in shares}, {})
        if again is not None and again.path == failure.path and again.progress <= failure.progress:
            return True
    return False


def _necessary_updates(
    trials: TrialCutter, network: Network, shares: Kept, failure: Failure, updates: Sequence[AttributeUpdate]
) -> list[AttributeUpdate]:
    """Select the updates that are necessary; equal numbers may count other things."""
    necessary_updates = list(updates)
    for update in updates if len(updates) > 1 else ():
        fewer = [other_update for other_update in necessary_updates if other_update is not update]
        if fewer and trials.passes(_with_updates(network, fewer), shares, failure):
            necessary_updates = fewer
    return necessary_updates


def _with_updates(network: Network, updates: Sequence[AttributeUpdate]) -> Network:
    """Return the network with further updates; of two for one attribute the later counts."""
    return replace(
        network,
        attribute_updates=tuple({update.key: update for update in (*network.attribute_updates, *updates)}.values()),
    )


def update_attributes_by_group(trials: TrialCutter, network: Network, seed: int, failure: Failure) -> Network | None:
    """Return the network with updates, or steps, for groups that fail alone."""
    path = ancestors(failure.path)[:1]
    shares = draw_shares(network, seed)
    improved_network = None
    for group in failing_groups(trials, network, candidate_groups(network, *path), shares, failure) if path else ():
        better_network = _update_for_group(trials, improved_network or network, seed, group.name, failure)
        improved_network = better_network or improved_network
    return improved_network


def _update_for_group(trials: TrialCutter, network: Network, seed: int, name: str, failure: Failure) -> Network | None:
    """Return the network in which one group gets further alone: attributes follow it, or it shrinks in steps."""
    kept = {name: draw_shares(network, seed)[name]}
    failure_before = trials.run(network, kept, {})
    if failure_before is None or failure_before.path is None:
        return None
    updated_network = update_attributes(trials, network, kept, failure_before, ancestors(failure.path)[:2])
    if updated_network is not None:
        return updated_network
    for step in STEPS:
        groups = tuple(
            replace(group, multiple=step) if group.name == name and group.size > step else group
            for group in network.groups
        )
        candidate = replace(network, groups=groups)
        kept = {name: draw_shares(candidate, seed)[name]}
        if trials.passes(candidate, kept, failure_before) and not _is_chance(trials, candidate, kept, failure_before):
            return candidate
    return None


def update_attributes_by_output(trials: TrialCutter, network: Network, seed: int, failure: Failure) -> Network | None:
    """Return the network with attributes that follow groups whose cut runs, but with another output.

    Code that leaves one length to torch (`reshape(batch, length, self.count, -1)`) runs with an old count, too.
    """
    if failure.path is not None:
        return None
    shares = draw_shares(network, seed)
    improved_network = None
    for name in bisect_failures(trials, network, network.groups, shares):
        current = improved_network or network
        kept = {name: draw_shares(current, seed)[name]}
        failure_alone = trials.run(current, kept, {})
        if failure_alone is not None and failure_alone.path is None:
            improved_network = (
                _update_reshapers(trials, current, kept, current.by_name[name], failure_alone) or improved_network
            )
    return improved_network


def _update_reshapers(
    trials: TrialCutter, network: Network, kept: Kept, group: Group, before: Failure
) -> Network | None:
    """Return the network in which attributes of modules that reshape a group's activations follow it."""
    reads = trials.reads(network, kept)
    tries = (
        (updates, [*same_class_updates(trials.model, network, updates)])
        for path in reshapers(network, group)
        for updates in proposed_updates(trials.model, network, path, reads)
    )
    for updates, same_class in islice(tries, MOST_ATTRIBUTES):
        candidate = _with_updates(network, [*same_class, *updates])
        failure = trials.run(candidate, kept, {})
        if failure is None and not _is_chance(trials, candidate, kept, before):
            return candidate
    return None
