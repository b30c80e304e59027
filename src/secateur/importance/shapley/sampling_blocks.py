"""Numbered blocks of samples: block k of a group draws its coalitions and examples from (seed, group, k) alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from secateur.importance.estimates import Sample
from secateur.importance.shapley.game import Game
from secateur.importance.shapley.samplers.base import CoalitionDesign, Sampler
from secateur.importance.shapley.samplers.exact import exact
from secateur.utils.rng import generator_for


class SamplingScheme(Protocol):
    """The definition of one block of samples."""

    @property
    def fixed_blocks(self) -> int | None:
        """The number of blocks where no rule ends the sampling, else None."""
        ...

    def sample(self, game: Game, numbers: Sequence[Tensor], seed: int, name: str, block: int) -> Sample:
        """Return the sample of one block.

        Args:
            game: the game.
            numbers: of each microbatch the numbers of its examples in the data.
            seed: the seed of all draws.
            name: the purpose of the draws: the group's name.
            block: the block's number.
        """
        ...


@dataclass(frozen=True)
class DesignScheme:
    """A block by a sampler's design.

    Args:
        name: the sampler's name.
        sampler: the function that draws the coalitions.
        examples: the number of examples of a microbatch that a block uses; 0 for all.
        spread: whether every pair of coalitions is evaluated on one of the examples, in place of all of them.
        every: whether a block uses every microbatch, or one in its turn.
        fixed_blocks: the number of blocks where no rule ends the sampling, else None.
    """

    name: str
    sampler: Sampler
    examples: int
    spread: bool = False
    every: bool = False
    fixed_blocks: int | None = None

    def sample(self, game: Game, numbers: Sequence[Tensor], seed: int, name: str, block: int) -> Sample:
        """Return the sample of one block, as `SamplingScheme` defines it."""
        design = self.sampler(game.players, generator_for(seed, name, block))
        is_spread = self.spread and game.stacks
        shares, example_numbers = [], []
        for microbatch in range(len(numbers)) if self.every else [microbatch_of_block(seed, name, len(numbers), block)]:
            size = len(numbers[microbatch])
            is_subset = 0 < self.examples < size and game.stacks
            positions = positions_of_visit(self.examples, size, block // len(numbers)) if is_subset else None
            positions = torch.arange(size) if positions is None else positions
            shares.append(_shares_of_examples(game, design, microbatch, positions, is_spread))
            example_numbers.append(numbers[microbatch][positions])
        zeros = torch.zeros(game.players, dtype=torch.float64)
        noise = zeros if self.sampler is exact else zeros / 0
        examples, count = torch.cat(example_numbers), len(design.coalitions)
        evaluations = count if is_spread and design.free else count * len(examples)
        return Sample(examples, torch.cat(shares, 1), count, evaluations, zeros, noise)

    def __str__(self) -> str:
        return f"{self.name}{f', {self.examples} examples a block' if self.examples else ''}"


def microbatch_of_block(seed: int, name: str, count: int, block: int) -> int:
    """Return the number of a block's microbatch: all take turns, in a new random order each round."""
    order = torch.randperm(count, generator=generator_for(seed, name, "cells", block // count))
    return int(order[block % count])


def positions_of_visit(examples: int, size: int, visit: int) -> Tensor:
    """Return the positions of a block's examples in its microbatch, ascending; each visit uses the next ones."""
    count = min(examples, size)
    return ((visit * count + torch.arange(count)) % size).sort().values


def _shares_of_examples(
    game: Game, design: CoalitionDesign, microbatch: int, positions: Tensor, is_spread: bool
) -> Tensor:
    """Return each example's shares, (players, examples)."""
    all_present = game.everyone(microbatch, positions)
    fractions = design.coalitions.sum(1, dtype=torch.float64) / game.players
    count, examples = len(design.coalitions), len(positions)
    if not (is_spread and design.free):
        none_present, values = _crossed_values(game, design, microbatch, positions)
        gain = all_present - none_present
        return design.shares(values - none_present - gain * fractions[:, None]) + gain / game.players
    columns = torch.arange(count) // 2 * examples // ((count + 1) // 2)  # a pair shares one example
    none_present, values = _spread_values(game, design, microbatch, positions, columns)
    gain = all_present - none_present
    surplus = torch.zeros(count, examples, dtype=torch.float64)
    surplus[torch.arange(count), columns] = (values - none_present[columns] - gain[columns] * fractions) * examples
    return design.shares(surplus) + gain / game.players


def _crossed_values(game: Game, design: CoalitionDesign, microbatch: int, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Return the values without players, (examples,), and of each coalition, (coalitions, examples)."""
    empty_coalitions = torch.zeros(1, game.players, dtype=torch.bool)
    values = game.cross(torch.cat([empty_coalitions, design.coalitions]), microbatch, positions)  # in the same tiles
    return values[0], values[1:]


def _spread_values(
    game: Game, design: CoalitionDesign, microbatch: int, positions: Tensor, columns: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the values without players, (examples,), and of each coalition on one example, (coalitions,).

    Args:
        game: the game.
        design: the coalitions.
        microbatch: the number of the microbatch.
        positions: the positions of the examples in the microbatch, (examples,).
        columns: for each coalition the index of its example in `positions`, (coalitions,).
    """
    empty_coalitions = torch.zeros(len(positions), game.players, dtype=torch.bool)
    all_columns = torch.cat([columns, torch.arange(len(positions))])
    order = all_columns.argsort(stable=True)  # rows of one example lie together
    values = torch.empty(len(all_columns), dtype=torch.float64)
    values[order] = game.paired_values(
        torch.cat([design.coalitions, empty_coalitions])[order], microbatch, positions[all_columns[order]]
    )
    return values[len(columns) :], values[: len(columns)]
