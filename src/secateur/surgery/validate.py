"""Find out, before anything is planned, which groups a model's own code can't bear to lose units from.

A copy loses a random share of every group and is run beside the masked run. Where its code fails, the module is known
whose code it was: numbers among its attributes that equal an old size are tried with the new one, and kept where the
copy then gets further. What that does not mend is frozen: those of the groups in that module that fail there by
themselves. Modules of one class share what was found in the first of them.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import torch
from torch import Tensor, fx, nn

from secateur.coupling.network import AttributeUpdate, Frozen, Group, Kept, Network
from secateur.coupling.regroup import freeze_groups, merge_groups
from secateur.coupling.residual_blocks import RemovableBlock, find_blocks, of_blocks
from secateur.masking.ablation import consumer_key
from secateur.surgery.diagnose import (
    ancestors,
    candidate_groups,
    owned,
    proposals,
    reshapers,
    same_class_groups,
    same_class_modules,
    same_class_updates,
)
from secateur.surgery.trial_cut import Failure, TrialCutter
from secateur.surgery.validate_programs import with_fixed_lengths, with_module_programs, without_idle_programs

MOST_TRIALS = 200
MOST_BUNDLES = 12
MOST_ATTRIBUTES = 48
MOST_MEANS = 64
DRAWS = 3
WIDE = 1024
STEPS = (4, 8, 16)


def validate_groups(model: nn.Module, network: Network, seed: int = 0) -> Network:
    """The network with what its code needs mended, and without the groups that can't be cut for real."""
    trials = TrialCutter(model)
    first = trials.run(network, _shares(network, seed), _some_means(network))
    for draw in range(seed if first is not None else seed + 1, seed + DRAWS):
        network = _settled(trials, network, draw)
    trials.far = False
    while first is not None and network.groups:
        first = trials.run(network, _shares(network, seed), _some_means(network))
        if first is None:
            break
        network = freeze_groups(network, _halved(trials, network, network.groups, _shares(network, seed)))
    network = without_idle_programs(_with_least(trials, network))
    return with_fixed_lengths(trials, network, _shares(network, seed))


def _settled(trials: TrialCutter, network: Network, seed: int) -> Network:
    """The network after one draw of shares passes."""
    trials.far = seed == 1
    for _ in range(MOST_TRIALS):
        failure = trials.run(network, _shares(network, seed), {})
        if failure is None:
            break
        before = network
        network = (
            _mended(trials, network, _shares(network, seed), failure, ancestors(trials.model, failure.place))
            or _mended_one_by_one(trials, network, seed, failure)
            or _mended_by_output(trials, network, seed, failure)
            or _bundled(trials, network, seed, failure)
            or _as_module_programs(trials, network, _shares(network, seed), failure)
            or _without_culprits(trials, network, _shares(network, seed), failure)
        )
        if network is before:  # no single group is to blame, nor all of them
            break
    return network


def removable_blocks(model: nn.Module, network: Network) -> list[RemovableBlock]:
    """The blocks of a network that can be left out, as a trial of each shows."""
    trials = TrialCutter(model)
    return [
        block
        for block in find_blocks(network.program)
        if trials.run(of_blocks(network, [block]), {"blocks": torch.arange(0)}, {}) is None
    ]


def validate_blocks(model: nn.Module, network: Network, blocks: Sequence[RemovableBlock]) -> Network:
    """The network whose units are those blocks that can be left out; the others are named, with what went wrong."""
    trials = TrialCutter(model)
    fine, frozen = [], []
    for block in blocks:
        failure = trials.run(of_blocks(network, [block]), {"blocks": torch.arange(0)}, {})
        if failure is None:
            fine.append(block)
        else:
            reason = "what follows its sum changes what comes in" if failure.place is None else failure.reason
            frozen.append(Frozen(block.path, 1, "", block.path, reason))
    return replace(of_blocks(network, fine), frozen=tuple(frozen))


def _shares(network: Network, seed: int) -> dict[str, Tensor]:
    """Of each group a random part, but not all of it.

    The first draw leaves a half or more, which shows what most models bear, and is the same for a group whatever became
    of the others; later ones any part, another one for groups of the same size, as equal parts hide what is wrong.
    Of wide groups the first one leaves a half or less, since copying what stays of their weights takes the time.
    """
    shares: dict[str, Tensor] = {}
    alike: Counter[int] = Counter()
    for group in network.groups:
        generator = np.random.default_rng([seed, group.size, *group.name.encode()])
        most = group.size // 2 if group.size > WIDE else group.size
        some = int(generator.integers(max(1, most // 2), max(most, 2)))
        choices, place = max(group.size - 1, 1), alike[group.size]
        other = 1 + (group.size // 3 + seed * place + place // choices) % choices
        alike[group.size] += 1
        left = max((some if seed == 0 else other) // group.multiple * group.multiple, group.multiple, group.fewest)
        shares[group.name] = torch.from_numpy(np.sort(generator.permutation(group.size)[:left]))
    return shares


def _some_means(network: Network) -> dict[str, Tensor]:
    """Random means for a few of the entries that each reader reads: enough to see that they are folded rightly."""
    generator = np.random.default_rng(0)
    folding = (consumer for consumer in network.consumers if consumer.fold is not None)
    means = {}
    for consumer in folding:
        length = len(consumer.units)
        few = generator.random(length) < MOST_MEANS / length
        means[consumer_key(consumer)] = torch.from_numpy(generator.normal(size=length) * few)
    return means


def _with_least(trials: TrialCutter, network: Network) -> Network:
    """Groups that fail only when the fewest units are left keep one more."""
    least = {group.name: max(group.multiple, group.fewest) for group in network.groups}
    shares = {group.name: torch.arange(group.size)[-least[group.name] :] for group in network.groups}
    if not network.groups or trials.run(network, shares, {}) is None:
        return network
    alone = _halved(trials, network, network.groups, shares)
    more = {name: least[name] + 1 for name in alone}
    groups = (replace(group, fewest=more.get(group.name, group.fewest)) for group in network.groups)
    return replace(network, groups=tuple(groups))


def _mended(
    trials: TrialCutter, network: Network, shares: Kept, failure: Failure, paths: Sequence[str]
) -> Network | None:
    """The network with new values for attributes of these modules, where those bring the copy further."""
    reads = trials.reads(network, shares) if paths else None
    for path in paths:
        for mends in proposals(trials.model, network, path, reads):
            tried = _with_mends(network, mends)
            if trials.passes(tried, shares, failure) and not _is_chance(trials, tried, shares, failure):
                mends = _needed(trials, network, shares, failure, mends)
                tried = _with_mends(network, mends)
                held = {mend.key for mend in tried.mends}
                alike = same_class_updates(trials.model, network, mends)
                return _with_mends(tried, [mend for mend in alike if mend.key not in held])
    return None


def _is_chance(trials: TrialCutter, network: Network, shares: Kept, failure: Failure) -> bool:
    """Whether what helped one draw of shares leaves another where it was: a wrong number may be right for one draw."""
    for draw in range(1, DRAWS):
        drawn = _shares(network, draw)
        again = trials.run(network, {name: drawn[name] for name in shares}, {})
        if again is not None and again.place == failure.place and again.progress <= failure.progress:
            return True
    return False


def _needed(
    trials: TrialCutter, network: Network, shares: Kept, failure: Failure, mends: Sequence[AttributeUpdate]
) -> list[AttributeUpdate]:
    """Those of several mends without which the copy gets no further: equal numbers may count other things."""
    needed = list(mends)
    for mend in mends if len(mends) > 1 else ():
        fewer = [other for other in needed if other is not mend]
        if fewer and trials.passes(_with_mends(network, fewer), shares, failure):
            needed = fewer
    return needed


def _with_mends(network: Network, mends: Sequence[AttributeUpdate]) -> Network:
    """The network with further mends; of two for one attribute the later counts."""
    return replace(network, mends=tuple({mend.key: mend for mend in (*network.mends, *mends)}.values()))


def _mended_one_by_one(trials: TrialCutter, network: Network, seed: int, failure: Failure) -> Network | None:
    """The network with mends, or steps, that bring groups further that fail by themselves."""
    path = ancestors(trials.model, failure.place)[:1]
    shares = _shares(network, seed)
    found = None
    for group in _culprits(trials, network, candidate_groups(network, *path), shares, failure) if path else ():
        better = _mended_alone(trials, found or network, seed, group.name, failure)
        found = better or found
    return found


def _mended_alone(trials: TrialCutter, network: Network, seed: int, name: str, failure: Failure) -> Network | None:
    """The network in which one group gets further by itself: attributes follow it, or it shrinks in steps."""
    kept = {name: _shares(network, seed)[name]}
    before = trials.run(network, kept, {})
    if before is None or before.place is None:
        return None
    mended = _mended(trials, network, kept, before, ancestors(trials.model, failure.place)[:2])
    if mended is not None:
        return mended
    for step in STEPS:
        groups = tuple(
            replace(group, multiple=step) if group.name == name and group.size > step else group
            for group in network.groups
        )
        tried = replace(network, groups=groups)
        kept = {name: _shares(tried, seed)[name]}
        if trials.passes(tried, kept, before) and not _is_chance(trials, tried, kept, before):
            return tried
    return None


def _mended_by_output(trials: TrialCutter, network: Network, seed: int, failure: Failure) -> Network | None:
    """The network with attributes that follow groups whose cut the code can bear, but with another output.

    Code that leaves one length to torch (`reshape(batch, length, self.count, -1)`) runs with an old count, too.
    """
    if failure.place is not None:
        return None
    shares = _shares(network, seed)
    found = None
    for name in _halved(trials, network, network.groups, shares):
        current = found or network
        kept = {name: _shares(current, seed)[name]}
        alone = trials.run(current, kept, {})
        if alone is not None and alone.place is None:
            found = _following(trials, current, kept, current.by_name[name], alone) or found
    return found


def _following(trials: TrialCutter, network: Network, kept: Kept, group: Group, before: Failure) -> Network | None:
    """The network in which attributes of modules that reshape a group's activations follow it, and so the output."""
    reads = trials.reads(network, kept)
    tries = (
        (mends, [*same_class_updates(trials.model, network, mends)])
        for path in reshapers(network, group)
        for mends in proposals(trials.model, network, path, reads)
    )
    for mends, alike in islice(tries, MOST_ATTRIBUTES):
        tried = _with_mends(network, [*alike, *mends])
        failure = trials.run(tried, kept, {})
        if failure is None and not _is_chance(trials, tried, kept, before):
            return tried
    return None


def _bundled(trials: TrialCutter, network: Network, seed: int, failure: Failure) -> Network | None:
    """The network in which heads take their share of the width along, where the code takes one from the other."""
    for path in ancestors(trials.model, failure.place):
        culprits = _culprits(trials, network, candidate_groups(network, path), _shares(network, seed), failure)
        for wide, narrow in islice(_pairs(culprits), MOST_BUNDLES):
            tried = merge_groups(network, wide, narrow)
            found = trials.run(tried, _shares(tried, seed), {})
            if found is None or found.progress > failure.progress:
                return _bundled_alike(trials, network, tried, path, (wide, narrow))
    return None


def _bundled_alike(
    trials: TrialCutter, before: Network, network: Network, path: str, pair: tuple[Group, Group]
) -> Network:
    """The same for the other modules of the class, as far as their groups play the same parts."""
    for place in same_class_modules(trials.model, path):
        wide, narrow = (
            next((g for g in before.groups if owned(g, place) and owned(g, place) == owned(group, path)), None)
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


def _pairs(near: Sequence[Group]) -> Iterator[tuple[Group, Group]]:
    """Groups of which one could go with a share of the other: heads, or what is like them, and a width."""
    for narrow in sorted(near, key=lambda group: (group.kind not in ("heads", "bundles"), group.size)):
        wide = [group for group in near if group is not narrow and group.size % narrow.size == 0]
        likely = sorted(wide, key=lambda group: (group.size == narrow.size, group.size))
        yield from ((group, narrow) for group in likely)


def _as_module_programs(trials: TrialCutter, network: Network, shares: Kept, failure: Failure) -> Network | None:
    """The network in which modules run programs of their code, for all groups or for those that fail by themselves."""
    if isinstance(trials.model, fx.GraphModule):
        return None
    better = with_module_programs(trials, network, shares, failure)
    if better is not None:
        return better
    if failure.place is None:
        culprits = [*_halved(trials, network, network.groups, shares)]
    else:
        near = candidate_groups(network, next(iter(ancestors(trials.model, failure.place))))
        culprits = [group.name for group in _culprits(trials, network, near, shares, failure)]
    for name in culprits:
        kept = {name: shares[name]}
        alone = trials.run(better or network, kept, {})
        if alone is not None:
            better = with_module_programs(trials, better or network, kept, alone) or better
    return better


def _without_culprits(trials: TrialCutter, network: Network, shares: Kept, failure: Failure) -> Network:
    """The network without the groups that fail by themselves where the failure was, and their like elsewhere."""
    for path in ancestors(trials.model, failure.place):
        near = candidate_groups(network, path)
        rest = {name: kept for name, kept in shares.items() if name not in {group.name for group in near}}
        if near and trials.passes(network, rest, failure):
            culprits = _culprits(trials, network, near, shares, failure) or near
            like = [found for group in culprits for found in same_class_groups(trials.model, network, path, group)]
            return freeze_groups(network, {group.name: failure.reason for group in (*culprits, *like)})
    return freeze_groups(network, _halved(trials, network, network.groups, shares))


def _culprits(
    trials: TrialCutter, network: Network, groups: Sequence[Group], shares: Kept, failure: Failure
) -> list[Group]:
    """Those of the groups that fail by themselves where the failure was."""
    return [group for group in groups if not trials.passes(network, {group.name: shares[group.name]}, failure)]


def _halved(trials: TrialCutter, network: Network, groups: Sequence[Group], shares: Kept) -> dict[str, str]:
    """The groups that fail, found by halves; what failed only together fails as a whole."""
    failure = trials.run(network, {group.name: shares[group.name] for group in groups}, _some_means(network))
    if failure is None or not groups:
        return {}
    if len(groups) == 1:
        return {groups[0].name: failure.reason}
    half = len(groups) // 2
    found = _halved(trials, network, groups[:half], shares) | _halved(trials, network, groups[half:], shares)
    return found or {group.name: failure.reason for group in groups}
