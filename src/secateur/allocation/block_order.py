"""In which order whole blocks go: by what the output loses when a block is left out and what follows is refitted."""

from collections.abc import Callable, Sequence

import torch
from tqdm import tqdm

from secateur.allocation.simulate import PlanSimulator
from secateur.coupling.network import Group, Kept
from secateur.coupling.residual_blocks import blocks_of, is_inside
from secateur.graph.operators import module_path
from secateur.masking.linear_layers import LinearLayer

ROUNDS = 3
FOLLOWING = 3
Saving = Callable[[Kept], float]


def order_of_blocks(
    rehearsal: PlanSimulator, left: Saving, progress: bool = True, is_time_up: Callable[[], bool] = lambda: False
) -> tuple[str, ...]:
    """The paths of a network's blocks, those first that lose least for what they save.

    Each is left out in turn, the layers behind it are solved for so that they make good the residual stream's error,
    and the output is compared with the dense network's. What is lost depends on what is gone already, so the blocks
    that go first are left out before the others are measured again, a few times.

    Args:
        rehearsal: on what it is measured; of a network traced with blocks beside other kinds.
        left: which part of the dense network is left, of the budget's units.
        progress: show a progress bar.
        is_time_up: asked before each block; those that were not measured when it is go last.
    """
    group = blocks_of(rehearsal.network)
    if group is None:
        return ()
    order: list[str] = []
    share = -(-group.size // (ROUNDS + 1))
    for number in range(ROUNDS):
        remaining = [path for path in group.places if path not in order]
        prices = _prices(rehearsal, group, order, remaining, left, progress, is_time_up)
        ranked = sorted(remaining, key=lambda path: prices.get(path, float("inf")))
        order += ranked if number == ROUNDS - 1 else _apart(ranked, group)[:share]
    return tuple(order)


def _prices(
    rehearsal: PlanSimulator,
    group: Group,
    gone: Sequence[str],
    remaining: Sequence[str],
    left: Saving,
    progress: bool,
    is_time_up: Callable[[], bool],
) -> dict[str, float]:
    """What each of the remaining blocks loses for what it saves, where others are gone."""
    prices: dict[str, float] = {}
    now = left(_without(group, gone))
    for path in tqdm(remaining, desc="blocks", disable=None if progress else True, leave=False):
        if is_time_up():
            break
        kept = _without(group, [*gone, path])
        layers = {layer.node: layer for other in (*gone, path) for layer in _behind(rehearsal, other)}
        lost = rehearsal.divergence(kept, list(layers.values()))
        prices[path] = lost / max(now - left(kept), 1e-12)
    return prices


def _without(group: Group, paths: Sequence[str]) -> dict[str, torch.Tensor]:
    stays = [at for at, path in enumerate(group.places) if path not in paths]
    return {group.name: torch.tensor(stays, dtype=torch.long)}


def _behind(rehearsal: PlanSimulator, path: str) -> list[LinearLayer]:
    """The first layers behind a block, in the order in which they run."""
    position = rehearsal.network.program.position
    inside = [layer for layer in rehearsal.layers if is_inside(module_path(layer.node), [path])]
    last = max((position[layer.node] for layer in inside), default=-1)
    return [layer for layer in rehearsal.layers if position[layer.node] > last][:FOLLOWING]


def _apart(ranked: Sequence[str], group: Group) -> list[str]:
    """The blocks in the order of a ranking, without those that lie next to one before."""
    chosen: list[str] = []
    for path in ranked:
        at = group.places.index(path)
        if not {at - 1, at + 1} & {group.places.index(other) for other in chosen}:
            chosen.append(path)
    return chosen
