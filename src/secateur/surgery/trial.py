"""Find out, before anything is planned, which groups a model's own code can't bear to lose units from.

A copy loses a random share of every group and is run beside the masked run. Where its code fails, the module is known
whose code it was: numbers among its attributes that equal an old size are tried with the new one, and kept where the
copy then gets further. What that does not mend is frozen: those of the groups in that module that fail there by
themselves. Modules of one class share what was found in the first of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn

from secateur.errors import SecateurError, SurgeryError
from secateur.network.blocks import Block, of_blocks
from secateur.network.masked import Means, reader_key, run_masked
from secateur.network.program import preserved
from secateur.network.regroup import bundled, without
from secateur.network.units import Frozen, Group, Kept, Mend, Network
from secateur.surgery.cut import cut_copy
from secateur.surgery.suspects import chain, kin, kin_groups, kin_mends, owned, proposals, suspects
from secateur.surgery.verify import compare

MOST_TRIALS = 200
MOST_BUNDLES = 12
STEPS = (4, 8, 16)


@dataclass(frozen=True)
class Failure:
    """A trial that failed.

    Args:
        reason: what the model said.
        place: the module in whose code it failed; None where it ran but gave another output.
        progress: how many calls of modules had been completed.
    """

    reason: str
    place: str | None
    progress: float


def settle(model: nn.Module, network: Network, seed: int = 0) -> Network:
    """The network with what its code needs mended, and without the groups that can't be cut for real."""
    for _ in range(MOST_TRIALS):
        failure = _attempt(model, network, _shares(network, seed), {})
        if failure is None:
            break
        network = (
            _mended(model, network, _shares(network, seed), failure)
            or _aligned(model, network, seed, failure)
            or _bundled(model, network, seed, failure)
            or _without_culprits(model, network, _shares(network, seed), failure)
        )
    while network.groups and _attempt(model, network, _shares(network, seed), _some_means(network)) is not None:
        network = without(network, _halved(model, network, network.groups, _shares(network, seed)))
    return _with_least(model, network)


def settle_blocks(model: nn.Module, network: Network, blocks: Sequence[Block]) -> Network:
    """The network whose units are those blocks that can be left out; the others are named, with what went wrong."""
    fine, frozen = [], []
    for block in blocks:
        failure = _attempt(model, of_blocks(network, [block]), {"blocks": torch.arange(0)}, {})
        if failure is None:
            fine.append(block)
        else:
            reason = "what follows its sum changes what comes in" if failure.place is None else failure.reason
            frozen.append(Frozen(block.path, 1, "", block.path, reason))
    return replace(of_blocks(network, fine), frozen=tuple(frozen))


def _shares(network: Network, seed: int) -> dict[str, Tensor]:
    """Of each group a random half or more, but not all of it; the same for a group whatever became of the others."""
    shares = {}
    for group in network.groups:
        generator = np.random.default_rng([seed, group.size, *group.name.encode()])
        left = int(generator.integers(max(1, group.size // 2), group.size)) // group.multiple * group.multiple
        left = max(left, group.multiple)
        shares[group.name] = torch.from_numpy(np.sort(generator.permutation(group.size)[:left]))
    return shares


def _some_means(network: Network) -> dict[str, Tensor]:
    generator = np.random.default_rng(0)
    folding = (reader for reader in network.readers if reader.fold is not None)
    return {reader_key(reader): torch.from_numpy(generator.normal(size=len(reader.units))) for reader in folding}


def _with_least(model: nn.Module, network: Network) -> Network:
    """Groups that fail only when one unit is left keep two."""
    shares = {group.name: torch.arange(group.size)[-group.multiple :] for group in network.groups}
    if not network.groups or _attempt(model, network, shares, {}) is None:
        return network
    alone = _halved(model, network, network.groups, shares)
    return replace(
        network, groups=tuple(replace(group, fewest=2) if group.name in alone else group for group in network.groups)
    )


def _mended(model: nn.Module, network: Network, shares: Kept, failure: Failure) -> Network | None:
    """The network with new values for attributes, where those bring the copy further."""
    for path in chain(model, failure.place):
        for mends in proposals(model, network, path):
            tried = _with_mends(network, mends)
            found = _attempt(model, tried, shares, {})
            if found is None or found.progress > failure.progress:
                held = {mend.key for mend in tried.mends}
                return _with_mends(tried, [m for m in kin_mends(model, network, mends) if m.key not in held])
    return None


def _with_mends(network: Network, mends: Sequence[Mend]) -> Network:
    """The network with further mends; of two for one attribute the later counts."""
    return replace(network, mends=tuple({mend.key: mend for mend in (*network.mends, *mends)}.values()))


def _aligned(model: nn.Module, network: Network, seed: int, failure: Failure) -> Network | None:
    """The network whose groups shrink in steps, where kernels insist on it."""
    for path in chain(model, failure.place)[:1]:
        names = {
            group.name for group in _culprits(model, network, suspects(network, path), _shares(network, seed), failure)
        }
        for step in STEPS if names else ():
            groups = tuple(
                replace(group, multiple=max(step, group.multiple))
                if group.name in names and group.size > step
                else group
                for group in network.groups
            )
            tried = replace(network, groups=groups)
            found = _attempt(model, tried, _shares(tried, seed), {})
            if found is None or found.progress > failure.progress:
                return tried
    return None


def _bundled(model: nn.Module, network: Network, seed: int, failure: Failure) -> Network | None:
    """The network in which heads take their share of the width along, where the code takes one from the other."""
    for path in chain(model, failure.place):
        culprits = _culprits(model, network, suspects(network, path), _shares(network, seed), failure)
        for wide, narrow in islice(_pairs(culprits), MOST_BUNDLES):
            tried = bundled(network, wide, narrow)
            found = _attempt(model, tried, _shares(tried, seed), {})
            if found is None or found.progress > failure.progress:
                return _bundled_alike(model, network, tried, path, (wide, narrow))
    return None


def _bundled_alike(
    model: nn.Module, before: Network, network: Network, path: str, pair: tuple[Group, Group]
) -> Network:
    """The same for the other modules of the class, as far as their groups play the same parts."""
    for place in kin(model, path):
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
            network = bundled(network, now, network.by_name[narrow.name])
    return network


def _pairs(near: Sequence[Group]) -> Iterator[tuple[Group, Group]]:
    """Groups of which one could go with a share of the other: heads, or what is like them, and a width."""
    for narrow in sorted(near, key=lambda group: (group.kind not in ("heads", "bundles"), group.size)):
        wide = [group for group in near if group is not narrow and group.size % narrow.size == 0]
        likely = sorted(wide, key=lambda group: (group.size == narrow.size, group.size))
        yield from ((group, narrow) for group in likely)


def _without_culprits(model: nn.Module, network: Network, shares: Kept, failure: Failure) -> Network:
    """The network without the groups that fail by themselves where the failure was, and their like elsewhere."""
    for path in chain(model, failure.place):
        near = suspects(network, path)
        rest = {name: kept for name, kept in shares.items() if name not in {group.name for group in near}}
        if near and _passes(model, network, rest, failure):
            culprits = _culprits(model, network, near, shares, failure) or near
            like = [found for group in culprits for found in kin_groups(model, network, path, group)]
            return without(network, {group.name: failure.reason for group in (*culprits, *like)})
    return without(network, _halved(model, network, network.groups, shares))


def _culprits(
    model: nn.Module, network: Network, groups: Sequence[Group], shares: Kept, failure: Failure
) -> list[Group]:
    """Those of the groups that fail by themselves where the failure was."""
    return [group for group in groups if not _passes(model, network, {group.name: shares[group.name]}, failure)]


def _passes(model: nn.Module, network: Network, shares: Kept, before: Failure) -> bool:
    """Whether a trial gets further than another did."""
    failure = _attempt(model, network, shares, {}) if shares else None
    return failure is None or failure.progress > before.progress


def _halved(model: nn.Module, network: Network, groups: Sequence[Group], shares: Kept) -> dict[str, str]:
    """The groups that fail, found by halves; what failed only together fails as a whole."""
    failure = _attempt(model, network, {group.name: shares[group.name] for group in groups}, _some_means(network))
    if failure is None or not groups:
        return {}
    if len(groups) == 1:
        return {groups[0].name: failure.reason}
    half = len(groups) // 2
    found = _halved(model, network, groups[:half], shares) | _halved(model, network, groups[half:], shares)
    return found or {group.name: failure.reason for group in groups}


def _attempt(model: nn.Module, network: Network, kept: Kept, means: Means) -> Failure | None:
    """Cut a copy and run it beside the masked run; what went wrong, or None."""
    batch = network.example
    try:
        small, _ = cut_copy(model, network, kept, means, shared=True)
    except SurgeryError as failure:
        return Failure(str(failure), "", -1)
    done = 0

    def count(*_: object) -> None:
        nonlocal done
        done += 1

    for module in small.modules():
        module.register_forward_hook(count)
    with preserved(small), torch.random.fork_rng(devices=[]):
        try:
            found = small(*batch.args, **batch.kwargs)
        except Exception as failure:  # noqa: BLE001 the model's own code may raise anything
            said = f"the cut {network.title} can't be run: {type(failure).__name__}: {failure}"
            return Failure(said, _place(small, failure), done)
        try:
            compare(found, run_masked(network, batch, network.mask(kept), means), network.title)
        except SecateurError as failure:
            return Failure(str(failure), None, float("inf"))
    return None


def _place(model: nn.Module, failure: BaseException) -> str:
    """The path of the innermost module of the model whose code was running."""
    paths = {module: path for path, module in model.named_modules()}
    place, frame = "", failure.__traceback__
    while frame is not None:
        own = frame.tb_frame.f_locals.get("self")
        if isinstance(own, nn.Module) and own in paths:
            place = paths[own]
        frame = frame.tb_next
    return place
