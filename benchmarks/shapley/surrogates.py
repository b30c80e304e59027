"""Shapley values from surrogates that are fitted to pairs of coalitions, each pair on an example of its own.

- Leverage SHAP in one regression over all pairs. With pairs it is PolySHAP of degree 2 (Fumagalli, Witter, Musco 2026,
  arXiv 2601.18608, whose theorem a test repeats).
- PolySHAP of degree 3 with pairs. With all triples it has more terms than there are evaluations; the paper then selects
  some. Here all of them are fitted with a ridge, in the dual form (ours).
- Regression-adjusted Monte Carlo (Witter, Liu, Musco 2025, arXiv 2506.11849), with a linear surrogate and with boosted
  trees: in each of ten folds the surrogate of the other nine, corrected by its residual on the fold.

The Shapley value depends on the odd part of a game alone, (v(S) - v(complement of S)) / 2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy.stats import hypergeom
from torch import Tensor

from secateur.importance.shapley.game import Game
from secateur.importance.shapley.samplers.adjusted import sampled_shares
from secateur.importance.shapley.samplers.base import with_complements
from secateur.importance.shapley.samplers.kernelshap import of_sizes
from secateur.importance.shapley.samplers.regression import solution
from shapley.boosted_trees import fit_trees

FOLDS = 10
RIDGES, CUBES = (0.03, 0.3, 3.0), (0.0, 3.0, 30.0)  # of which leave-one-out errors choose


@dataclass(frozen=True)
class PairedValues:
    """Coalitions of all sizes alike, each followed by its complement, with the surplus of each on the pair's example.

    Args:
        coalitions: (coalitions, players).
        surplus: (coalitions,).
        gain: the mean over all examples of v(all) - v(none).
    """

    coalitions: Tensor
    surplus: Tensor
    gain: float

    @property
    def players(self) -> int:
        """The number of players."""
        return self.coalitions.shape[1]

    def select(self, is_selected: Tensor) -> "PairedValues":
        """Return some of the pairs, by booleans (pairs,)."""
        rows = is_selected.repeat_interleave(2)
        return PairedValues(self.coalitions[rows], self.surplus[rows], self.gain)

    @property
    def odd(self) -> Tensor:
        """The odd part of the surplus, (pairs,)."""
        return (self.surplus[::2] - self.surplus[1::2]) / 2


Estimator = Callable[[PairedValues], Tensor]


def paired_values(game: Game, pairs: int, generator: torch.Generator) -> PairedValues:
    """Draw pairs of coalitions, and evaluate each pair on one example; all examples take turns in a random order."""
    sizes = torch.randint(1, game.players, (pairs,), generator=generator)
    coalitions = with_complements(of_sizes(game.players, sizes, generator))
    counts = [batch.size or 1 for batch in game.context.microbatches]
    ends = [game.ends(microbatch, torch.arange(count)) for microbatch, count in enumerate(counts)]
    none_present, all_present = (torch.cat(values) for values in zip(*ends, strict=True))  # (examples,)
    gain = all_present - none_present
    rounds = -(-pairs // len(gain))
    order = torch.cat([torch.randperm(len(gain), generator=generator) for _ in range(rounds)])[:pairs]
    examples = order.repeat_interleave(2)
    values = torch.empty(len(examples), dtype=torch.float64)
    starts = torch.tensor([0, *counts]).cumsum(0)
    for microbatch in range(len(counts)):
        rows = torch.nonzero((examples >= starts[microbatch]) & (examples < starts[microbatch + 1])).flatten()
        rows = rows[examples[rows].argsort(stable=True)]  # rows of one example lie together
        if len(rows):
            values[rows] = game.paired_values(coalitions[rows], microbatch, examples[rows] - starts[microbatch])
    fractions = coalitions.sum(1, dtype=torch.float64) / game.players
    surplus = values - none_present[examples] - gain[examples] * fractions
    return PairedValues(coalitions, surplus, float(gain.mean()))


def linear(values: PairedValues) -> Tensor:
    """Return the shares of one regression over all pairs, (players,)."""
    sizes = values.coalitions.sum(1).double()
    kernel = 1 / (sizes * (values.players - sizes))
    return solution(values.coalitions, kernel, values.surplus[:, None])[:, 0]


def cubic(values: PairedValues) -> Tensor:
    """Return the shares of a polynomial of degree 3, all terms with a ridge, (players,)."""
    signs = 2 * values.coalitions[::2].double() - 1  # (pairs, players)
    signs = torch.cat([signs, torch.ones(1, values.players, dtype=torch.float64)])  # all against nobody: exactly 0
    odd = torch.cat([values.odd, torch.zeros(1, dtype=torch.float64)])
    products = signs @ signs.T / values.players
    sizes = values.coalitions[::2].sum(1).double()
    noise = sizes * (values.players - sizes)
    noise = torch.cat([noise / noise.mean(), torch.full((1,), 1e-6, dtype=torch.float64)])
    best, chosen = float("inf"), (torch.zeros_like(odd), 0.0)
    for cube in CUBES:
        kernel = products + cube * products**3
        for ridge in RIDGES:
            system = kernel + torch.diag(ridge * noise)
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(system))
            weights = inverse @ odd
            error = float(((weights / inverse.diagonal()).square() / noise)[:-1].sum())  # leave one out
            if error < best:
                best, chosen = error, (weights, cube)
    weights, cube = chosen
    shares = torch.from_numpy(kernel_shares(values.players, cube))  # (sizes, 2)
    members = (signs > 0).long()
    return (weights[:, None] * shares[members.sum(1, keepdim=True), members]).sum(0)


@lru_cache
def kernel_shares(players: int, cube: float) -> np.ndarray:
    """Return the Shapley value of the game r + cube r^3, with r the fraction of players that agree with a coalition T.

    A player agrees where it is a member of both the game's coalition and T, or of neither; r is from -1 to 1.

    Returns:
        for each size of T the share of a player outside and of one inside, (players + 1, 2).
    """
    shares = np.zeros((players + 1, 2))
    joined = np.arange(players)[:, None]  # before the player
    for size in range(players + 1):
        for inside in (0, 1):
            others = size - inside
            if not 0 <= others <= players - 1:
                continue
            common = np.arange(others + 1)[None]  # members of T among those that joined
            chances = hypergeom.pmf(common, players - 1, others, joined)
            agreeing = common + (players - 1 - others) - (joined - common)  # of the others
            before, after = (2 * (agreeing + (1 - inside)) - players, 2 * (agreeing + inside) - players)
            marginal = _cubic(after / players, cube) - _cubic(before / players, cube)
            shares[size, inside] = (chances * marginal).sum() / players
    return shares


def _cubic(r: np.ndarray, cube: float) -> np.ndarray:
    return r + cube * r**3


def adjusted_linear(values: PairedValues) -> Tensor:
    """Return the shares of linear surrogates, each corrected on a fold that it was not fitted to, (players,)."""

    def fit(fitted: PairedValues, corrected: PairedValues) -> tuple[Tensor, Tensor]:
        shares = linear(fitted)
        return shares, corrected.coalitions.double() @ shares

    return _adjusted(values, fit)


def adjusted_trees(values: PairedValues) -> Tensor:
    """Return the shares of boosted trees, each corrected on a fold that it was not fitted to, (players,)."""

    def fit(fitted: PairedValues, corrected: PairedValues) -> tuple[Tensor, Tensor]:
        trees = fit_trees(fitted.coalitions.numpy(), fitted.surplus.numpy())
        predicted = trees.predict(corrected.coalitions.numpy())
        return torch.from_numpy(trees.shapley(values.players)), torch.from_numpy(predicted)

    return _adjusted(values, fit)


def _adjusted(values: PairedValues, fit: Callable[[PairedValues, PairedValues], tuple[Tensor, Tensor]]) -> Tensor:
    """Return the mean over folds of the surrogate's shares and the sampled shares of its residual, (players,)."""
    folds = torch.arange(len(values.odd)) % FOLDS
    estimates = []
    for fold in range(FOLDS):
        corrected = values.select(folds == fold)
        shares, predicted = fit(values.select(folds != fold), corrected)
        residual = corrected.surplus - predicted
        residual_shares = sampled_shares(corrected.coalitions, residual[:, None])[:, 0]
        estimates.append(shares - shares.mean() + residual_shares)  # the residuals of nobody and of all are exact
    return torch.stack(estimates).mean(0)


ESTIMATORS: dict[str, Estimator] = {
    "leverage, one regression": linear,
    "PolySHAP, degree 3": cubic,
    "adjusted, linear": adjusted_linear,
    "adjusted, trees": adjusted_trees,
}
