"""Imputation: absent units by their best linear prediction from those that are present, against plain least squares."""

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur.data.batch import Batch
from secateur.errors import BudgetError, SurgeryError
from secateur.masking import imputation
from secateur.masking.ablation import consumer_key, run_masked
from secateur.masking.imputation import MOST_STEPS, ConsumerMoments, ImputationWeights, LinearImputer, consumer_moments

DRAWS = torch.Generator().manual_seed(0)
ROWS = torch.randn(40, 12, generator=DRAWS, dtype=torch.float64) @ torch.randn(12, 12, generator=DRAWS).double() + 1


def moments_of(rows: Tensor) -> ConsumerMoments:
    return ConsumerMoments(rows.mean(0), rows.T.cov(correction=0))


def prediction(rows: Tensor, is_known: Tensor) -> Tensor:
    """The coefficients of least squares on the centred rows. (unknown, known)"""
    centred = rows - rows.mean(0)
    return torch.linalg.lstsq(centred[:, is_known], centred[:, ~is_known]).solution.T


def test_coefficients_are_those_of_least_squares_for_any_set_after_any_other() -> None:
    """Single steps, many at once, and more steps than are made without solving anew."""
    weights = ImputationWeights(moments_of(ROWS))
    is_known = torch.zeros(12, dtype=torch.bool)
    draws = torch.Generator().manual_seed(1)
    for step in range(MOST_STEPS + 10):
        flips = torch.randperm(12, generator=draws)[: 7 if step == 20 else 1]
        is_known[flips] = ~is_known[flips]
        torch.testing.assert_close(weights.coefficients(is_known), prediction(ROWS, is_known), atol=1e-8, rtol=1e-8)


def test_no_more_steps_are_made_than_rounding_allows() -> None:
    weights = ImputationWeights(moments_of(ROWS))
    is_known, solved = torch.zeros(12, dtype=torch.bool), 0
    for step in range(2 * MOST_STEPS + 2):
        is_known[step % 12] = ~is_known[step % 12]
        before = weights._steps
        weights.coefficients(is_known)
        solved += weights._steps <= before
        assert weights._steps <= MOST_STEPS
    assert solved == 2


@pytest.mark.parametrize("dim", [1, -1, 2])
def test_unknown_entries_along_an_axis_are_predicted_and_known_ones_stay(dim: int) -> None:
    x = torch.randn(3, 5, 12, generator=DRAWS).movedim(-1, dim)
    weights, is_known = ImputationWeights(moments_of(ROWS)), torch.arange(12) % 3 > 0
    filled = weights.fill(x, dim, is_known).movedim(dim, -1)
    rows = x.movedim(dim, -1)
    assert torch.equal(filled[..., is_known], rows[..., is_known])
    means = ROWS.mean(0).float()
    expected = (rows - means)[..., is_known] @ prediction(ROWS, is_known).float().T + means[~is_known]
    torch.testing.assert_close(filled[..., ~is_known], expected, atol=1e-4, rtol=1e-4)
    assert weights.fill(x, dim, torch.ones(12, dtype=torch.bool)) is x


def network_of(width: int = 6) -> tuple[nn.Sequential, sc.Network, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.Conv2d(width, 2, 1)).eval()
    x = torch.randn(8, 3, 6, 5)
    return model, sc.trace(model, x), x


def test_moments_are_those_of_all_positions_of_all_batches() -> None:
    model, network, x = network_of()
    moments = consumer_moments(network, [Batch((x[:3],), {}), Batch((x[3:],), {})])
    (consumer,) = network.consumers
    rows = model[:2](x).detach().double().movedim(1, -1).flatten(0, 2)
    moments_of_inputs = moments[consumer_key(consumer)]
    torch.testing.assert_close(moments_of_inputs.means, rows.mean(0))
    torch.testing.assert_close(moments_of_inputs.covariances, rows.T.cov(correction=0), atol=1e-5, rtol=1e-4)


def test_each_coalition_of_a_batch_is_imputed_from_its_own_units() -> None:
    """Coalitions that follow one another and are equal are filled at once, of which there are two here."""
    model, network, x = network_of()
    moments = consumer_moments(network, [Batch((x,), {})])
    imputer = LinearImputer({}, moments)
    assert not imputer.adds_up
    kept = [torch.arange(2), torch.arange(2), torch.tensor([0, 3, 5])]
    masks = torch.stack([network.mask({"0": units}) for units in kept])
    with torch.no_grad():
        batch = Batch((x.repeat(3, 1, 1, 1),), {})
        stacked = network.program.forward(batch, imputer.handlers(network, masks))
        hidden = model[:2](x)
        for units, result in zip(kept, stacked.chunk(3), strict=True):
            is_known = torch.zeros(6, dtype=torch.bool)
            is_known[units] = True
            (predictor,) = (ImputationWeights(value) for value in moments.values())
            torch.testing.assert_close(result, model[2](predictor.fill(hidden, 1, is_known)), atol=1e-5, rtol=1e-5)


def test_consumers_without_moments_have_means() -> None:
    _, network, x = network_of()
    means = {consumer_key(consumer): torch.full((6,), 0.5) for consumer in network.consumers}
    mask = network.mask({"0": torch.arange(2)})
    with torch.no_grad():
        result = network.program.forward(Batch((x,), {}), LinearImputer(means, {}).handlers(network, mask[None]))
    assert torch.equal(result, run_masked(network, Batch((x,), {}), mask, means))


def test_gates_and_wide_consumers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _, network, x = network_of()
    moments = consumer_moments(network, [Batch((x,), {})])
    with pytest.raises(SurgeryError, match="2 is predicted from the units that stay, which has no slope"):
        LinearImputer({}, moments).handlers(network, torch.ones(1, network.units + 1))
    monkeypatch.setattr(imputation, "MOST_ENTRIES", 5)
    with pytest.raises(BudgetError, match="2 reads 6 entries"):
        consumer_moments(network, [Batch((x,), {})])
