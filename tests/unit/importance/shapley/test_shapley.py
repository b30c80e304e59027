"""Shapley values: hand-solved games, enumeration, and the laws they obey."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur import demo
from secateur.data.conversion import as_batches
from secateur.importance.context import CriterionContext
from secateur.importance.shapley.dense_run import DenseRun
from secateur.stopping import Evaluations
from shapley_games import game_of, max_network, scores_of_maxima


@pytest.mark.parametrize(
    ("last", "expected"),
    [([1, 0.5, 0.5, 0], [0.375, 0.375, 1.75, 0]), ([1, 0.5, 0.5, -0.1], [0.425, 0.425, 2.0, -0.4])],
)
@pytest.mark.parametrize("estimator", ["exact", "antithetic"])
def test_the_max_network_has_the_values_found_by_hand(last: list[float], expected: list[float], estimator: str) -> None:
    """Squared error is a game of pairs, so one antithetic pair is exact; a single permutation is not."""
    values = scores_of_maxima(max_network(last), estimator=estimator).values
    assert values.tolist() == pytest.approx(expected, abs=1e-6)


def test_the_max_network_by_the_other_criteria() -> None:
    """Gradients see nothing there, weight norm is 1, 2, 2, 2 and activity half, half, always, always."""
    model = max_network([1, 0.5, 0.5, 0])
    assert scores_of_maxima(model, by="taylor").values.tolist() == [0, 0, 0, 0]
    assert scores_of_maxima(model, by="sensitivity").values.tolist() == [0, 0, 0, 0]
    assert scores_of_maxima(model, by="l1").values.tolist() == pytest.approx([1, 2, 2, 2])
    assert scores_of_maxima(model, by="apoz").values.tolist() == pytest.approx([0.5, 0.5, 1, 1])


def test_a_linear_head_with_squared_error_is_a_game_of_pairs_of_any_size() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 40), nn.Tanh(), nn.Linear(40, 1))
    x, y = torch.randn(16, 5), torch.randn(16, 1)
    options: Any = {"ablation": "zero", "aggregate": "mean", "estimator": "antithetic", "progress": False}
    scores = sc.score(sc.trace(model, x), [(x, y)], coalitions=1, **options)
    with torch.no_grad():
        contributions = model[1](model[0](x)).double() * model[2].weight.double()
        missing = model[2].bias.double() - y.double()
        shares = -(2 * missing * contributions + contributions * contributions.sum(1, keepdim=True))
    for example in range(16):
        values = scores["0"].per_example[:, example]
        if not values.isnan().any():
            assert values.tolist() == pytest.approx(shares[example].tolist(), abs=1e-4)


def test_a_dead_unit_is_worth_exactly_nothing_and_twins_the_same() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    model[2].weight.data[:, 1] = 0
    model[0].weight.data[4], model[0].bias.data[4] = model[0].weight.data[3], model[0].bias.data[3]
    model[2].weight.data[:, 4] = model[2].weight.data[:, 3]
    x = torch.randn(20, 4)
    for removal in ("zero", "mean"):
        options = {"estimator": "exact", "aggregate": "mean", "ablation": removal, "progress": False}
        values = sc.score(sc.trace(model, x), [x], **options)["0"].values
        assert values[1].abs() < 1e-7
        assert values[3] == pytest.approx(float(values[4]), rel=1e-4)


def test_the_default_finds_the_enumerated_values() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3))
    x = torch.randn(32, 6)
    y = model(5 * x).argmax(1)
    network = sc.trace(model, x[:2])
    options: Any = {"only": "2", "aggregate": "mean", "ablation": "zero", "progress": False}
    truth = sc.score(network, [(x, y)], estimator="exact", **options)["2"].values
    for name in ("controlled", "antithetic", "orthogonal", "leverage", "kernelshap", "adjusted", "svarm"):
        scores = sc.score(network, [(x, y)], estimator=name, stop=Evaluations(6000), **options)["2"]
        assert float((scores.values - truth).square().sum() / truth.square().sum()) < 0.1, name
        assert bool(((scores.values - truth).abs() < 6 * scores.errors_here + 1e-6).all()), name
        assert name in scores.layout or name == "controlled"


def test_the_choice_is_said_and_follows_the_network() -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 50), nn.ReLU(), nn.Linear(50, 3))
    x, y = torch.randn(64, 6), torch.randint(0, 3, (64,))
    network = sc.trace(model, x[:2])
    text = str(sc.score(network, [(x, y)], progress=False))
    assert "0: exact" in text
    assert text.startswith("shapley: 64 examples, mean ablation, mean + 2 standard deviations over examples")
    assert "2: controlled: gradients at 4 random coalitions per example, made unbiased by" in text
    limit = (
        "a largest standard error of 0.5 of the spread of the scores or 64 evaluations per unit, more in later layers"
    )
    assert f"  sampled until {limit} (heuristic: the errors are themselves estimates" in text

    def wrong(output: Tensor, target: Tensor) -> Tensor:
        return (output.argmax(1) != target).double()

    assert "2: antithetic" in str(sc.score(network, [(x, y)], loss=wrong, progress=False))
    for asked in ({"estimator": "controlled"}, {"by": "expected-gradients"}):
        with pytest.raises(sc.SecateurError, match="no gradient by the"):
            sc.score(network, [(x, y)], loss=wrong, progress=False, **asked)


def test_slopes_need_a_batch_that_can_be_stacked() -> None:
    game, _ = game_of("fixed batch", "zero")
    with pytest.raises(sc.SecateurError, match="several coalitions in one batch"):
        game.gradients(torch.ones(1, game.players).bool(), 0, torch.zeros(1, dtype=torch.long))


def test_large_outputs_count_as_memory_and_are_asked_for_again() -> None:
    torch.manual_seed(6)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5000))
    network = sc.trace(model, torch.randn(2, 4))
    microbatches = as_batches([torch.randn(32, 4) for _ in range(4)])
    cursor = DenseRun(CriterionContext(network, network.groups, microbatches, None, {}, 0), 1_500_000)
    for microbatch in range(4):
        assert cursor.dense_baseline(microbatch).examples == 32
    assert 0 < cursor.kept_bytes <= 1_500_000


def test_controlled_spares_most_of_the_error_of_plain_orders_at_equal_evaluations() -> None:
    """Half the squared error is promised; on a trained network it is far less."""
    network = sc.trace(demo.network(), demo.test()[0][0][:2])
    options: Any = {"only": "layer2.1.conv1", "aggregate": "mean", "ablation": "zero", "progress": False}
    data = demo.test()[:4]
    truth = sc.score(network, data, stop=Evaluations(15_000), estimator="leverage", seed=9, **options)
    errors = {}
    for name in ("permutation", "controlled"):
        runs = [sc.score(network, data, stop=Evaluations(1500), estimator=name, seed=s, **options) for s in range(3)]
        gaps = [run["layer2.1.conv1"].values - truth["layer2.1.conv1"].values for run in runs]
        errors[name] = sum(float(gap.square().sum()) for gap in gaps)
    assert errors["controlled"] < errors["permutation"] / 2


def test_bfloat16_is_near_is_said_in_the_mark_and_finds_dead_units() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 3))
    model[2].weight.data[:, 3] = 0.0
    network = sc.trace(model, torch.randn(2, 6))
    data = (torch.randn(64, 6), torch.arange(64) % 3)
    options: dict[str, Any] = {"ablation": "zero", "aggregate": "mean", "coalitions": 800, "progress": False}
    plain = sc.score(network, data, **options)
    rounded = sc.score(network, data, precision="bfloat16", **options)
    difference = (plain["0"].values - rounded["0"].values).norm() / plain["0"].values.norm()
    assert 0 < difference < 0.1
    assert rounded.note == "64 examples, zero ablation, mean over examples, bfloat16"
    assert abs(float(rounded["0"].values[3])) < 1e-15
    assert torch.equal(rounded["0"].values, sc.score(network, data, precision="bfloat16", **options)["0"].values)
    with pytest.raises(sc.SecateurError, match="precision"):
        sc.score(network, data, resume=plain, precision="bfloat16", **options)
    with pytest.raises(sc.SecateurError, match="known are float32, bfloat16"):
        sc.score(network, data, precision="float8", **options)
