"""The paper's protocol, its statistic, and the aggregates."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from secateur.utils.rng import generator_for
from shapley_games import INPUTS, MAXIMA, max_network, scores_of_maxima
from small_network import Small, batches


def test_the_papers_protocol_is_five_orders_for_all_examples() -> None:
    model = max_network([1, 0.5, 0.5, -0.1])
    network = sc.trace(model, INPUTS)
    scores = sc.score(network, [(INPUTS, MAXIMA)], protocol="paper", ablation="mean", progress=False)
    assert not scores.means
    group_scores = scores["0"]
    assert group_scores.coalitions == 5 * 3  # all and nobody are known
    assert not group_scores.per_example.isnan().any()
    shares = []
    for block in range(5):
        order = torch.randperm(4, generator=generator_for(0, "0", block))
        shares.append(by_hand(model, order))
    assert torch.allclose(group_scores.per_example, torch.stack(shares).mean(0), atol=1e-5)


def test_the_papers_statistic_is_numpys_to_the_bit_on_values_by_removal_one_by_one() -> None:
    """Units of a convolution are zeroed in turn, behind batch norm and ReLU, by a hook on the model itself."""
    model, network, (x, y) = *small_network(), batches(1)[0]
    group_scores = sc.score(network, [(x, y)], protocol="paper", only="conv1", seed=4, progress=False)["conv1"]
    values = np.zeros((len(y), 5))
    for block in range(5):
        order = torch.randperm(5, generator=generator_for(4, "conv1", block)).flip(0)  # the last that joined goes first
        gone: list[int] = []
        losses = [losses_without(model, x, y, gone)]
        for unit in order.tolist():
            gone.append(unit)
            losses.append(losses_without(model, x, y, gone))
            values[:, unit] += (losses[-1] - losses[-2]) / 5
    per_example = group_scores.per_example.T.numpy()
    assert np.allclose(per_example, values, atol=1e-6)
    exact = np.ascontiguousarray(per_example)
    assert np.array_equal(group_scores.values.numpy(), np.mean(exact, 0) + 2 * np.std(exact, 0))
    ours = sc.score(network, [(x, y)], protocol="paper", aggregate="robust", only="conv1", seed=4, progress=False)
    assert not np.allclose(group_scores.values.numpy(), ours["conv1"].values.numpy(), rtol=1e-3)


def small_network() -> tuple[Small, sc.Network]:
    torch.manual_seed(3)
    model = Small().eval()
    nn.init.normal_(model.bn.bias)
    return model, sc.trace(model, batches(1)[0][0])


def losses_without(model: Small, x: Tensor, y: Tensor, gone: list[int]) -> np.ndarray:
    """The loss of each example without some channels of the first convolution."""
    with torch.no_grad():
        a = F.relu(model.bn(model.conv1(x)))
        a[:, gone] = 0
        logits = model.fc(F.relu(model.conv2(a)).mean((2, 3)))
        return F.cross_entropy(logits, y, reduction="none").double().numpy()


def by_hand(model: nn.Module, order: Tensor) -> Tensor:
    """Marginals along an order by a plain loop. (units, examples)"""
    with torch.no_grad():
        activations = torch.relu(INPUTS @ model[0].weight.T)
        mask, marginals, before = torch.zeros(4), torch.zeros(4, 4, dtype=torch.float64), None
        for player in [None, *order.tolist()]:
            if player is not None:
                mask[player] = 1
            value = -((activations * mask) @ model[2].weight.T - MAXIMA).square()[:, 0].double()
            if player is not None:
                marginals[player] = value - before
            before = value
    return marginals


@pytest.mark.parametrize("aggregate", ["mean", "robust", "absolute", 0.5, lambda shares: shares.amax(1)])
def test_aggregates(aggregate: Any) -> None:
    group_scores = scores_of_maxima(max_network([1, 0.5, 0.5, 0]), estimator="exact", aggregate=aggregate)
    shares = group_scores.per_example
    expected = {
        "mean": shares.mean(1),
        "robust": shares.mean(1) + 2 * shares.std(1),
        "absolute": shares.abs().mean(1),
        0.5: shares.quantile(0.5, dim=1),
    }
    wanted = expected[aggregate] if not callable(aggregate) else shares.amax(1)
    assert torch.allclose(group_scores.values, wanted, atol=1e-9)
    assert bool((group_scores.errors >= 0).all())
