"""Scores by Shapley value, in numbered blocks.

Block k of a group draws its coalitions and examples from (seed, group, k) alone, and blocks are added up in order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from secateur.data import Batch
from secateur.errors import BudgetError, NameMatchError
from secateur.importance.evidence import Evidence, cells_of
from secateur.importance.registry import criterion
from secateur.importance.scores import GroupScores
from secateur.importance.seeds import generator_for
from secateur.importance.shapley.aggregates import Aggregate, find_aggregate
from secateur.importance.shapley.estimators import Estimator, find_estimator
from secateur.importance.shapley.game import MEMORY, Game
from secateur.network.units import Group

BLOCKS = 8
FEWEST, MOST = 2, 32  # examples in a cell
EVALUATIONS = 1024  # coalitions times examples of a block, about


@dataclass(frozen=True)
class Effort:
    """How one group's value is estimated.

    Args:
        estimator: draws each block's coalitions.
        blocks: how many blocks.
        cells: the examples in pieces, fewer in each the more coalitions a block has.
        all_cells: whether a block uses every example, or a cell of them in its turn.
    """

    estimator: Estimator
    blocks: int
    cells: Sequence[Batch]
    all_cells: bool


@criterion("shapley")
def shapley(evidence: Evidence) -> dict[str, GroupScores]:
    """Each unit's fair share in the network's performance (Ancona, Öztireli, Gross 2020)."""
    evidence.need_examples("shapley")
    options = evidence.options
    aggregate = find_aggregate(options.get("aggregate") or "robust")
    efforts = {group.name: effort_for(group, evidence, options) for group in evidence.groups}
    total = sum(effort.blocks for effort in efforts.values())
    found = {}
    with tqdm(
        total=total, desc="shapley", unit="block", disable=None if evidence.progress else True, leave=False
    ) as bar:
        for group in evidence.groups:
            bar.set_postfix_str(group.name)
            found[group.name] = _score(evidence, group, efforts[group.name], aggregate, bar)
    return found


def effort_for(group: Group, evidence: Evidence, options: dict[str, Any] | Any) -> Effort:
    """The estimator and number of blocks for a group, from what the user asked for.

    Raises:
        NameMatchError: an unknown protocol or estimator.
        BudgetError: the number of coalitions is not positive.
    """
    protocol = options.get("protocol")
    if protocol not in (None, "paper"):
        raise NameMatchError(f"protocol={protocol!r} is unknown; the one known is 'paper'")
    if protocol == "paper":
        return Effort(find_estimator("permutation", group.size)[1], 5, evidence.cells, all_cells=True)
    name, estimator = find_estimator(options.get("estimator") or "auto", group.size)
    if name == "exact":
        return Effort(estimator, len(evidence.cells), evidence.cells, all_cells=False)
    cells = cells_of(evidence.cells, evidence.network.device, min(max(EVALUATIONS // (2 * group.size), FEWEST), MOST))
    coalitions = options.get("coalitions")
    if coalitions is None:
        return Effort(estimator, max(BLOCKS, len(cells)), cells, all_cells=False)
    if coalitions < 1:
        raise BudgetError(f"coalitions={coalitions} is not a number of coalitions; give at least 1, or None")
    per_block = 2 * group.size if name == "antithetic" else group.size + 1
    return Effort(estimator, max(2, -(-coalitions // per_block)), cells, all_cells=False)


def _score(evidence: Evidence, group: Group, effort: Effort, aggregate: Aggregate, bar: "tqdm[Any]") -> GroupScores:
    cells = effort.cells
    game = Game(evidence, group, cells, int(evidence.options.get("memory") or MEMORY))
    starts = torch.tensor([0, *(cell.size or 1 for cell in cells)]).cumsum(0)
    samples: list[tuple[Tensor, Tensor]] = []  # which examples, and their shares (players, examples)
    evaluated = 0
    for block in range(effort.blocks):
        design = effort.estimator(group.size, generator_for(evidence.seed, group.name, block))
        used = range(len(cells)) if effort.all_cells else [_cell(evidence.seed, group, len(cells), block)]
        values = torch.cat([game(design.coalitions, cell) for cell in used], 1)
        examples = torch.cat([torch.arange(int(starts[cell]), int(starts[cell + 1])) for cell in used])
        samples.append((examples, design.shares(values)))
        evaluated += len(design.coalitions)
        bar.update()
    values, noise = pooled(samples, int(starts[-1]))
    errors = jackknife(samples, int(starts[-1]), aggregate)
    return GroupScores(aggregate(values, noise), errors, values, evaluated)


def _cell(seed: int, group: Group, cells: int, block: int) -> int:
    """The cell of a block: all cells take turns, in a new random order each time round."""
    order = torch.randperm(cells, generator=generator_for(seed, group.name, "cells", block // cells))
    return int(order[block % cells])


def pooled(samples: Sequence[tuple[Tensor, Tensor]], examples: int) -> tuple[Tensor, Tensor]:
    """Each example's mean over its blocks, and what estimation adds to their variance over examples.

    Returns:
        (players, examples), NaN where an example was in no block; and (players,), the mean over examples of the
        variance between an example's blocks divided by their number, 0 where no example was in two.
    """
    players = samples[0][1].shape[0]
    count = torch.zeros(examples, dtype=torch.float64)
    total, square = (torch.zeros(players, examples, dtype=torch.float64) for _ in range(2))
    for index, shares in samples:
        count[index] += 1
        total[:, index] += shares
        square[:, index] += shares.square()
    mean = total / count
    repeated = count > 1
    if not bool(repeated.any()):
        return mean, torch.zeros(players, dtype=torch.float64)
    between = (square - count * mean.square())[:, repeated] / (count - 1)[repeated]
    return mean, (between.clamp_min(0) / count[repeated]).mean(1)


def jackknife(samples: Sequence[tuple[Tensor, Tensor]], examples: int, aggregate: Aggregate) -> Tensor:
    """Standard errors of an aggregate, by leaving out one block (or, of a single block, one example) at a time."""
    if len(samples) == 1:
        index, shares = samples[0]
        zero = torch.zeros(shares.shape[0], dtype=torch.float64)
        fewer = [_without(shares, example) for example in range(shares.shape[1])] if len(index) > 1 else [shares]
        return spread_of(torch.stack([aggregate(part, zero) for part in fewer]))
    left = [[*samples[:block], *samples[block + 1 :]] for block in range(len(samples))]
    return spread_of(torch.stack([aggregate(*pooled(part, examples)) for part in left]))


def _without(shares: Tensor, example: int) -> Tensor:
    return torch.cat([shares[:, :example], shares[:, example + 1 :]], 1)


def spread_of(replicates: Tensor) -> Tensor:
    """The jackknife's standard error of (replicates, units)."""
    count = len(replicates)
    centred = replicates - replicates.mean(0)
    return (centred.square().sum(0) * (count - 1) / count).sqrt()
