"""The estimators that the benchmark of Shapley values compares, against enumeration on small games."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from shapley import boosted_trees
from shapley.boosted_trees import Leaf, fit_trees
from shapley.cheap_scores import controlled_by_scores
from shapley.surrogates import ESTIMATORS, PairedValues, cubic, kernel_shares, linear
from torch import Tensor

from secateur.importance.estimates import Sample
from secateur.importance.shapley.samplers.base import with_complements
from secateur.importance.shapley.samplers.kernelshap import of_sizes
from secateur.utils.rng import generator_for

PLAYERS = 6
EVERYONE = (torch.arange(2**PLAYERS)[:, None] >> torch.arange(PLAYERS)) & 1 == 1  # (coalitions, players)


def enumerated(values: Tensor) -> Tensor:
    """Return the Shapley value by its definition, from the value of each coalition in the order of `EVERYONE`."""
    shares = torch.zeros(PLAYERS, dtype=torch.float64)
    for player, coalition in itertools.product(range(PLAYERS), range(2**PLAYERS)):
        if not coalition >> player & 1:
            size = coalition.bit_count()
            weight = math.factorial(size) * math.factorial(PLAYERS - size - 1) / math.factorial(PLAYERS)
            shares[player] += weight * (values[coalition + (1 << player)] - values[coalition])
    return shares


def surplus_of(values: Tensor) -> Tensor:
    return values - values[0] - (values[-1] - values[0]) * EVERYONE.sum(1) / PLAYERS


def random_values(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    worth = torch.randn(PLAYERS, dtype=torch.float64, generator=generator)
    noise = torch.randn(2**PLAYERS, dtype=torch.float64, generator=generator)
    return EVERYONE.double() @ worth + 0.5 * noise


def drawn(values: Tensor, pairs: int, seed: int) -> PairedValues:
    generator = generator_for(seed, "pairs")
    sizes = torch.randint(1, PLAYERS, (pairs,), generator=generator)
    coalitions = with_complements(of_sizes(PLAYERS, sizes, generator))
    rows = (coalitions.long() * 2 ** torch.arange(PLAYERS)).sum(1)
    return PairedValues(coalitions, surplus_of(values)[rows], float(values[-1] - values[0]))


@pytest.mark.parametrize("size", range(PLAYERS + 1))
@pytest.mark.parametrize("cube", [0.0, 3.0])
def test_shares_of_the_kernel_are_its_shapley_value(size: int, cube: float) -> None:
    members = torch.arange(PLAYERS) < size
    agreement = (2 * (members == EVERYONE).sum(1) - PLAYERS).double() / PLAYERS
    expected = enumerated(agreement + cube * agreement**3)
    shares = torch.from_numpy(kernel_shares(PLAYERS, cube))[size, members.long()]
    assert torch.allclose(shares, expected)


def test_shares_of_a_leaf_are_its_shapley_value() -> None:
    leaf = Leaf((0, 3), (1, 2, 5), 2.0)
    values = 2.0 * (EVERYONE[:, [0, 3]].all(1) & ~EVERYONE[:, [1, 2, 5]].any(1)).double()
    assert np.allclose(leaf.shapley(PLAYERS), enumerated(values))


def test_trees_fit_a_conjunction() -> None:
    values = (EVERYONE[:, 0] & ~EVERYONE[:, 4]).double()
    trees = fit_trees(EVERYONE.numpy(), values.numpy())
    assert np.allclose(trees.predict(EVERYONE.numpy()), values, atol=0.02)
    assert np.allclose(trees.shapley(PLAYERS), enumerated(values), atol=0.02)


def test_paired_regression_is_a_regression_of_degree_two() -> None:
    """The theorem of PolySHAP: with pairs, terms of two players change no Shapley value."""
    values = drawn(random_values(0), 60, 1)
    members = values.coalitions.double()
    columns = [members, *(members[:, [i]] * members[:, [j]] for i, j in itertools.combinations(range(PLAYERS), 2))]
    sizes = members.sum(1)
    everyone = 1e5 * torch.ones(1, PLAYERS + math.comb(PLAYERS, 2), dtype=torch.float64)  # exact for all players
    weights = (1 / (sizes * (PLAYERS - sizes))).sqrt()[:, None]
    system = torch.cat([weights * torch.cat(columns, 1), everyone])
    target = torch.cat([weights * values.surplus[:, None], torch.zeros(1, 1, dtype=torch.float64)])
    terms = torch.linalg.lstsq(system, target, driver="gelsd").solution[:, 0]
    shares = terms[:PLAYERS].clone()
    for term, players in zip(terms[PLAYERS:], itertools.combinations(range(PLAYERS), 2), strict=True):
        shares[list(players)] += term / 2
    assert torch.allclose(shares, linear(values), atol=1e-6)


@pytest.mark.parametrize("name", ["adjusted, linear", "adjusted, trees"])
def test_regression_adjusted_estimates_have_no_bias(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boosted_trees, "TREES", 3)
    monkeypatch.setattr(boosted_trees, "DEPTH", 2)
    values, runs = random_values(2), 200
    estimates = torch.stack([ESTIMATORS[name](drawn(values, 20, run)) for run in range(runs)])
    error = estimates.std(0) / runs**0.5
    assert bool(((estimates.mean(0) - enumerated(surplus_of(values))).abs() < 4.5 * error).all())


def test_the_cubic_regression_is_near_exact_where_all_pairs_are_known() -> None:
    generator = torch.Generator().manual_seed(3)
    worth = torch.randn(PLAYERS, dtype=torch.float64, generator=generator)
    triple = (EVERYONE[:, 0] & EVERYONE[:, 1] & EVERYONE[:, 2]).double()
    surplus = surplus_of(EVERYONE.double() @ worth + triple)
    rows = [number for number in range(1, 2 ** (PLAYERS - 1)) for number in (number, 2**PLAYERS - 1 - number)]
    estimate = cubic(PairedValues(EVERYONE[rows], surplus[rows], 0.0))
    expected = enumerated(surplus)
    assert float((estimate - expected).square().sum() / expected.square().sum()) < 1e-3


class LinearBlocks:
    """Blocks of two examples, whose shares are twice the examples' scores and a constant."""

    fixed_blocks = None

    def __init__(self, scores: Tensor) -> None:
        self.scores = scores

    def sample(self, game: object, numbers: Sequence[Tensor], seed: int, name: str, block: int) -> Sample:
        examples = torch.tensor([2 * block, 2 * block + 1]) % self.scores.shape[1]
        nothing = torch.zeros(len(self.scores), dtype=torch.float64)
        return Sample(examples, 2 * self.scores[:, examples] + 1, 1, 1, nothing, nothing)


class NamedGame:
    """A game of one group, of which only the name is used."""

    groups = (type("Group", (), {"name": "group"}),)


def test_scores_that_explain_the_shares_leave_no_difference_between_examples() -> None:
    sign = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(5)  # as varied in each block as in all of them
    scores = torch.tensor([[1.0], [0.5], [-2.0]], dtype=torch.float64) * sign + 3
    subject = type("Examples", (), {"numbers": []})()
    estimate = controlled_by_scores(NamedGame(), subject, LinearBlocks(scores), scores, 0, 3)  # type: ignore[arg-type]
    assert torch.allclose(estimate, 2 * scores.mean(1) + 1)
