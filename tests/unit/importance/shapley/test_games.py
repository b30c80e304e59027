"""The other games: the whole network's, greedy removal, Banzhaf, and removal as after a repair."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur import demo
from secateur.data.conversion import as_batches
from secateur.importance.context import CriterionContext, split_microbatches
from secateur.importance.shapley.game import Game
from secateur.importance.shapley.owen import nested_sampler
from secateur.masking.imputation import ImputationWeights, LinearImputer, consumer_moments
from secateur.masking.operands import operand
from secateur.utils.rng import generator_for


def small(inputs: int = 5, seed: int = 0) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(inputs, 6), nn.ReLU(), nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 3))
    x = torch.randn(40, inputs)
    return model, x, model(4 * x).argmax(1)


def test_owen_values_share_out_what_the_whole_network_is_worth() -> None:
    model, x, y = small()
    network = sc.trace(model, x[:2])
    scores = sc.score(network, [(x, y)], by="owen", ablation="zero", coalitions=2000, progress=False)
    with torch.no_grad():
        nothing = model[4].bias.expand(40, 3)
        loss = nn.CrossEntropyLoss(reduction="none")
        gained = (loss(nothing, y) - loss(model(x), y)).double()
    total = sum(scores[name].per_example.sum(0) for name in scores)
    assert torch.allclose(total, gained, atol=1e-5)


def test_in_owens_orders_groups_stay_together() -> None:
    sizes = [2, 3, 4]
    design = nested_sampler(sizes)(9, generator_for(0, "owen"))
    spans = [slice(0, 2), slice(2, 5), slice(5, 9)]
    for coalition in design.coalitions:
        partly = [span for span in spans if 0 < int(coalition[span].sum()) < len(coalition[span])]
        assert len(partly) <= 1


def test_expected_gradients_are_the_value_of_an_additive_game() -> None:
    """A linear network with a linear loss: slopes are the same everywhere."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))
    x = torch.randn(20, 4)
    options: Any = {"loss": lambda output, target: -output[:, 0], "ablation": "zero", "progress": False}
    scores = sc.score(sc.trace(model, x[:2]), [(x, torch.zeros(20))], by="expected-gradients", **options)
    with torch.no_grad():
        expected = (model[1](model[0](x)) * model[2].weight[0]).T.double()
    assert torch.allclose(scores["0"].per_example, expected, atol=1e-5)


def test_greedy_takes_the_cheapest_each_time() -> None:
    model, x, y = small(seed=2)
    network = sc.trace(model, x[:2])
    values = sc.score(network, [(x, y)], by="greedy", ablation="zero", only="0", progress=False)["0"].values
    present, order = [0, 1, 2, 3, 4, 5], []
    loss = nn.CrossEntropyLoss()
    with torch.no_grad():
        hidden = model[1](model[0](x))
        while present:
            losses = []
            for unit in present:
                mask = torch.zeros(6)
                mask[[other for other in present if other != unit]] = 1
                losses.append(float(loss(model[4](model[3](model[2](hidden * mask))), y)))
            order.append(present.pop(losses.index(min(losses))))
    assert values.argsort().tolist() == order


def test_banzhaf_is_another_value_than_shapleys() -> None:
    model, x, y = small(seed=3)
    network = sc.trace(model, x[:2])
    options: Any = {"only": "2", "ablation": "zero", "progress": False, "coalitions": 4000}
    group_scores = sc.score(network, [(x, y)], by="banzhaf", **options)["2"]
    loss = nn.CrossEntropyLoss(reduction="none")
    everyone = (torch.arange(2**7)[:, None] >> torch.arange(7)) & 1
    with torch.no_grad():
        hidden = model[3](model[2](model[1](model[0](x))))
        values = torch.stack([-loss(model[4](hidden * mask), y).double().mean() for mask in everyone])
    members = everyone.bool()
    expected = torch.stack([values[members[:, unit]].mean() - values[~members[:, unit]].mean() for unit in range(7)])
    assert bool(((group_scores.values - expected).abs() < 5 * group_scores.errors_here + 0.02).all())


def test_predictions_are_those_of_least_squares_however_one_gets_there() -> None:
    torch.manual_seed(4)
    x = torch.randn(300, 12, dtype=torch.float64) @ torch.randn(12, 12, dtype=torch.float64) + 1
    network = sc.trace(nn.Sequential(nn.Linear(12, 12), nn.Identity(), nn.Linear(12, 2)).double(), x[:2])
    (consumer,) = [consumer for consumer in network.consumers if consumer.fold is not None]
    seen: dict[str, Tensor] = {}

    def look(target: Any, args: Any, kwargs: Any) -> Any:
        seen["x"] = operand(consumer, args, kwargs).detach()
        return target(*args, **kwargs)

    network.program.forward(as_batches(x)[0], {consumer.node: look})
    moments = next(iter(consumer_moments(network, as_batches(x)).values()))
    predictor, hidden = ImputationWeights(moments), seen["x"]
    known = torch.zeros(12, dtype=torch.bool)
    for entry in torch.randperm(12).tolist():  # along an order, and back at random
        known[entry] = True
        again = ImputationWeights(moments)
        again._solve(known)
        assert torch.allclose(predictor.coefficients(known), again.coefficients(known), atol=1e-8)
        filled = predictor.fill(hidden, 1, known)
        design = torch.cat([hidden[:, known], torch.ones(300, 1, dtype=torch.float64)], 1)
        fitted = design @ torch.linalg.lstsq(design, hidden).solution
        assert torch.allclose(filled[:, ~known], fitted[:, ~known], atol=1e-3)
        assert torch.equal(filled[:, known], hidden[:, known])


def test_a_unit_that_others_predict_is_worth_little_where_readers_are_refitted() -> None:
    """Twins: without a repair one of them matters, with it neither does."""
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    model[0].weight.data[4], model[0].bias.data[4] = model[0].weight.data[3], model[0].bias.data[3]
    model[2].weight.data[:, 3:5] *= 3
    x = torch.randn(64, 4)
    y = model(x).detach()
    network = sc.trace(model, x[:2])
    options: Any = {"by": "leave-one-out", "progress": False}
    mean, imputed = (
        sc.score(network, [(x, y)], ablation=removal, **options)["0"].values for removal in ("mean", "impute")
    )
    assert float(imputed[3:5].max()) < 0.01 * float(mean[3:5].min())
    exact = sc.score(network, [(x, y)], ablation="impute", estimator="exact", aggregate="mean", progress=False)["0"]
    assert exact.values[3] == pytest.approx(float(exact.values[4]), rel=1e-3)


def test_refit_values_of_a_real_network_add_up_and_cut_as_any() -> None:
    network = sc.trace(demo.network(), demo.calibration()[0][:2])
    scores = sc.score(
        network, demo.calibration()[:2], ablation="impute", only="layer1.0.conv1", aggregate="mean", progress=False
    )
    assert scores.means
    assert "antithetic" in scores["layer1.0.conv1"].layout
    plan = sc.plan(network, scores, keep={"units": 0.95})
    sc.cut(demo.network(), plan)


@pytest.mark.parametrize("ablation", ["zero", "impute"])
def test_stacked_coalitions_and_examples_give_what_each_coalition_gives_alone(ablation: str) -> None:
    """Rows are in the order of examples, or of coalitions where one prediction serves all examples."""
    images = demo.calibration()[0]
    network = sc.trace(demo.network(), images[:2])
    moments = consumer_moments(network, as_batches(images)) if ablation == "impute" else {}
    context = CriterionContext(network, network.groups, as_batches(images), None, {}, 0, moments)
    game = Game(context, network.select("layer2.0.conv1", None))
    coalitions = torch.rand(7, game.players, generator=torch.Generator().manual_seed(0)) < 0.7
    positions = torch.tensor([3, 0, 17, 9, 30])
    values = game.microbatch_values(0)
    alone = torch.cat([game.runner.values_of_microbatch(coalition, values) for coalition in coalitions.split(1)])
    assert game.stacks
    assert torch.allclose(game.cross(coalitions, 0, positions), alone[:, positions], rtol=1e-3, atol=1e-4)


def test_a_prediction_has_no_slope_and_too_many_entries_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secateur.masking.imputation.MOST_ENTRIES", 5)
    model, x, y = small()
    network = sc.trace(model, x[:2])
    with pytest.raises(sc.SecateurError, match="too many to predict"):
        sc.score(network, [(x, y)], ablation="impute", progress=False)
    monkeypatch.undo()
    removal = LinearImputer({}, consumer_moments(network, as_batches(x)))
    with pytest.raises(sc.SecateurError, match="no slope"):
        removal.handlers(network, torch.ones(1, network.units + 1))


@pytest.mark.parametrize("estimator", ["controlled", "antithetic"])
def test_owen_values_are_the_mean_over_all_orders_in_which_groups_stay_together(estimator: str) -> None:
    torch.manual_seed(4)
    layers = [nn.Linear(5, 2), nn.ReLU(), nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 3)]
    model = nn.Sequential(*layers)
    x = torch.randn(16, 5)
    y = model(4 * x).argmax(1)
    network = sc.trace(model, x[:2])
    microbatches = split_microbatches(as_batches((x, y)), torch.device("cpu"))
    context = CriterionContext(network, network.groups, microbatches, None, {}, 0)
    game = Game(context, network.groups)
    coalitions = torch.tensor(list(itertools.product([False, True], repeat=7)))
    values = dict(
        zip(map(tuple, coalitions.tolist()), game.cross(coalitions, 0, torch.arange(16)).mean(1), strict=True)
    )
    expected, orders = torch.zeros(7, dtype=torch.float64), 0
    for inside in itertools.product(*(itertools.permutations(group) for group in ((0, 1), (2, 3), (4, 5, 6)))):
        for groups in itertools.permutations(inside):
            order, orders = itertools.chain(*groups), orders + 1
            present = [False] * 7
            for unit in order:
                before = values[tuple(present)]
                present[unit] = True
                expected[unit] += values[tuple(present)] - before
    options: Any = {"ablation": "zero", "aggregate": "mean", "coalitions": 10_000, "progress": False}
    scores = sc.score(network, (x, y), by="owen", estimator=estimator, **options)
    estimates, errors = (
        torch.cat([getattr(scores[name], field) for name in scores]) for field in ("values", "errors_here")
    )
    assert estimates.sum() == pytest.approx(float(expected.sum() / orders), abs=1e-6)
    assert ((estimates - expected / orders).abs() / errors).max() < 3.5
    with pytest.raises(sc.SecateurError, match="known are auto, controlled, antithetic"):
        sc.score(network, (x, y), by="owen", estimator="leverage", **options)
