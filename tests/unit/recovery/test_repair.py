"""Repairs in closed form."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

import secateur as sc
from expected_warnings import untrained_networks
from secateur import demo
from secateur.data.conversion import as_batches
from secateur.errors import SurgeryError
from secateur.evaluation.divergence import divergence
from secateur.importance.context import split_microbatches
from secateur.recovery.batchnorm import match_batchnorm
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.paired_run import PairedExecution
from secateur.recovery.refit import refit
from secateur.recovery.regression_moments import RegressionMoments
from secateur.recovery.ridge import RIDGES, Choice, RidgeFactor, System, select_ridge, solve, systems_of
from secateur.surgery.recipe import recipe_of
from zoo import grow

pytestmark = untrained_networks


def cut_half(model: nn.Module, x: torch.Tensor) -> tuple[nn.Module, sc.Plan]:
    network = sc.trace(model, x)
    plan = sc.plan(network, sc.score(network, by="l2"), {"units": 0.6})
    return sc.cut(model, plan), plan


def mend(repair: Any, small: nn.Module, model: nn.Module, plan: sc.Plan, x: torch.Tensor) -> None:
    """A repair in closed form, whether it helps or not."""
    within = EmbeddedPrunedNetwork.of(small, plan.network, recipe_of(model, plan))
    with torch.no_grad():
        repair(PairedExecution(within, split_microbatches(as_batches(list(x.split(20))), torch.device("cpu"))))
        within.write(small)


def test_batch_norms_give_the_dense_networks_means_and_variances() -> None:
    """Also of examples that are nothing like those the dense network's own statistics came from."""
    model, _ = grow("residual")
    torch.manual_seed(0)
    x = 3 * torch.randn(60, 3, 8, 8) + 1
    small, plan = cut_half(model, x)
    mend(match_batchnorm, small, model, plan, x)
    wanted: dict[str, torch.Tensor] = {}
    outputs: dict[str, torch.Tensor] = {}
    for network, seen in ((model, wanted), (small, outputs)):
        for name in ("stem.1", "bn1", "bn2"):
            network.get_submodule(name).register_forward_hook(
                lambda module, args, output, name=name, seen=seen: seen.update({name: output.detach().clone()})
            )
        with torch.no_grad():
            network(x)
    for name, group in (("stem.1", "stem.0"), ("bn1", "conv1"), ("bn2", "stem.0")):
        dense = wanted[name][:, plan.kept[group]]
        assert torch.allclose(outputs[name].mean((0, 2, 3)), dense.mean((0, 2, 3)), atol=1e-4)
        assert torch.allclose(outputs[name].std((0, 2, 3)), dense.std((0, 2, 3)), rtol=1e-3)
    assert not any(module.training for module in small.modules())


def test_nothing_cut_nothing_changed() -> None:
    model, _ = grow("residual")
    network = sc.trace(model, torch.randn(2, 3, 8, 8))
    plan = sc.plan(network, sc.score(network, by="l2"), {"units": 1.0})
    small = sc.cut(model, plan)
    mend(match_batchnorm, small, model, plan, torch.randn(50, 3, 8, 8))
    for name, buffer in small.named_buffers():
        assert torch.allclose(buffer, model.get_buffer(name), rtol=1e-4, atol=1e-5)


def test_a_model_without_batch_norm_is_as_it_was() -> None:
    model = grow("mlp")[0]
    small, plan = cut_half(model, torch.randn(9, 6))
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    sc.repair(small, model, plan, torch.randn(9, 6), how="batchnorm")
    assert all(torch.equal(before[name], tensor) for name, tensor in small.state_dict().items())


def test_examples_that_the_model_refuses_change_nothing() -> None:
    model, x = grow("residual")
    small, plan = cut_half(model, x)
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    with pytest.raises(sc.SecateurError, match="refuses inputs"):
        sc.repair(small, model, plan, torch.randn(9, 4, 8, 8))
    assert all(torch.equal(before[name], tensor) for name, tensor in small.state_dict().items())
    assert not any(module._forward_pre_hooks for module in (*small.modules(), *model.modules()))


def test_it_brings_a_cut_network_nearer_to_the_dense_one() -> None:
    reports = [
        sc.prune(
            demo.network(),
            demo.calibration(),
            {"macs": 0.6},
            by="l1",
            test=demo.test()[:10],
            repair=how,
            progress=False,
        ).report
        for how in (None, "batchnorm")
    ]
    assert reports[1].pruned.divergence < 0.5 * reports[0].pruned.divergence
    assert "not repaired" in str(reports[0]) and "repaired by batchnorm" in str(reports[1])


def test_a_repair_that_does_harm_is_left_out() -> None:
    def harm(small: nn.Module, model: nn.Module, batches: Any) -> None:
        small[2].bias.data += torch.tensor([5.0, 0.0, 0.0])

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3))
    data = list(torch.randn(64, 6).split(8))
    unmended = sc.prune(model, data, {"macs": 0.5}, by="l1", repair=None, progress=False)
    with pytest.warns(UserWarning, match="harm was left out"):
        result = sc.prune(model, data, {"macs": 0.5}, by="l1", repair=harm, progress=False)
    assert torch.equal(result.model[2].bias, unmended.model[2].bias)
    assert "harm did not bring it nearer" in str(result.report)


def test_a_trainer_of_your_own() -> None:
    """It gets the small model, the dense one and three quarters of the examples."""
    seen: list[int] = []

    def train(small: nn.Module, dense: nn.Module, batches: Any) -> None:
        seen.extend(batch.size for batch in batches)
        optimizer = torch.optim.Adam(small.parameters(), 0.01)
        for _ in range(50):
            for batch in batches:
                loss = (small(*batch.args) - dense(*batch.args).detach()).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 30), nn.Tanh(), nn.Linear(30, 3))
    data = torch.randn(80, 6)
    small, plan = cut_half(model, data)
    before = float((small(data) - model(data)).square().mean())
    sc.repair(small, model, plan, data, how=train)
    assert sum(seen) == 60
    assert float((small(data) - model(data)).square().mean()) < 0.5 * before


def test_tuning_goes_on_from_the_refit_and_leaves_no_trace() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 20), nn.ReLU(), nn.Linear(20, 3)).requires_grad_(
        False
    )
    data = torch.randn(400, 6)
    small, plan = cut_half(model, data)
    state = torch.get_rng_state()
    sc.repair(small, model, plan, data, how="refit", progress=False)
    refitted = float(divergence(small(data), model(data)).mean())
    sc.repair(small, model, plan, data, how="tune", steps=150, learning_rate=3e-3, progress=False)
    assert float(divergence(small(data), model(data)).mean()) < 0.8 * refitted
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in small.parameters())
    assert torch.equal(state, torch.get_rng_state())


def test_tuning_with_labels_and_changed_inputs() -> None:
    """Labels and an augmentation are used: each is seen to reach the training."""
    seen: list[torch.Size] = []

    def shaken(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.shape)
        return x + 0.01 * torch.randn_like(x)

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 5))
    x = torch.randn(100, 6)
    small, plan = cut_half(model, x)
    sc.repair(
        small, model, plan, (x, model(x).argmax(1)), how="tune", steps=20, batch_size=16, augment=shaken, progress=False
    )
    assert set(seen) == {torch.Size([16, 6])}


def test_a_loss_that_is_nan_stops_and_the_state_is_the_best_so_far() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))
    x = torch.randn(64, 6)
    small, plan = cut_half(model, x)
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    with pytest.raises(sc.SecateurError, match="tune: the loss is nan at step 1"):
        sc.repair(small, model, plan, x, how="tune", augment=lambda x: x * float("nan"), steps=5, progress=False)
    assert all(torch.equal(before[name], tensor) for name, tensor in small.state_dict().items())


def test_an_unknown_repair_lists_the_known() -> None:
    model = grow("mlp")[0]
    small, plan = cut_half(model, torch.randn(9, 6))
    with pytest.raises(
        sc.SecateurError, match="no repair is named 'prayer'; known are mean, batchnorm, refit, adapt, tune"
    ):
        sc.repair(small, model, plan, torch.randn(9, 6), how="prayer")
    with pytest.raises(sc.SecateurError, match="no repair is named 'prayer'"):
        sc.prune(model, torch.randn(9, 6), {"macs": 0.5}, repair="prayer")


def twins(layer: Any, axis: int) -> None:
    """Every unit twice."""
    half = layer.weight.shape[axis] // 2
    halves = layer.weight.data.narrow(axis, 0, half)
    layer.weight.data.copy_(torch.cat([halves, halves], axis))
    if axis == 0:
        layer.bias.data.copy_(layer.bias.data[:half].repeat(2))


CONVOLUTIONS = {
    "plain": {},
    "strided": {"stride": 2, "padding": 1},
    "dilated": {"dilation": 2, "padding": 2},
    "same": {"padding": "same"},
    "circular": {"padding": 1, "padding_mode": "circular"},
    "without a bias": {"bias": False},
}


@pytest.mark.parametrize("how", [*CONVOLUTIONS, "linear", "in one dimension"])
def test_a_refit_makes_up_for_twins_that_went(how: str) -> None:
    """Of every two equal units one goes: the layer that reads them can be as it was, and is."""
    torch.manual_seed(0)
    if how == "linear":
        model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
        x = torch.randn(80, 4, 5)
    elif how == "in one dimension":
        model = nn.Sequential(nn.Conv1d(3, 8, 3), nn.Tanh(), nn.Conv1d(8, 3, 3, stride=2, padding=1))
        x = torch.randn(80, 3, 12)
    else:
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Conv2d(8, 3, 3, **CONVOLUTIONS[how]))
        x = torch.randn(80, 3, 8, 8)
    twins(model[0], 0)
    network = sc.trace(model, x)
    plan = sc.Plan(network, {"0": torch.arange(4)}, {}, network.cost(), network.cost(), {})
    small = sc.cut(model, plan)
    before = float((small(x) - model(x)).abs().max())
    sc.repair(small, model, plan, x, how="refit")
    assert float((small(x) - model(x)).abs().max()) < 0.02 * before


def test_a_refit_of_a_layer_without_a_bias_after_zero_removal() -> None:
    """There is nowhere to put a constant, so the weights must do without one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 12), nn.Sigmoid(), nn.Linear(12, 3, bias=False))
    x = torch.randn(200, 5)
    network = sc.trace(model, x)
    plan = sc.plan(network, sc.score(network, by="random"), {"units": 0.5})
    small = sc.cut(model, plan)
    before = float((small(x) - model(x)).square().mean())
    sc.repair(small, model, plan, x, how="refit")
    with torch.no_grad():
        kept = model[:2](x)[:, plan.kept["0"]]
        best = torch.linalg.lstsq(kept, model(x)).solution
        least = float((kept @ best - model(x)).square().mean())
    assert small[2].bias is None
    assert float((small(x) - model(x)).square().mean()) < least + 0.05 * (before - least)


def test_a_refit_leaves_the_dense_model_and_its_hooks() -> None:
    model, _ = grow("vgg")
    x = torch.randn(40, 3, 8, 8)
    small, plan = cut_half(model, x)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sc.repair(small, model, plan, x)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in (*small.modules(), *model.modules()))


class Block(nn.Module):
    """A residual stream whose width can be cut, between two layers that make and read it."""

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.make, self.read = nn.Linear(6, 16), nn.Linear(16, 3)
        self.up, self.down = nn.Linear(16, 40), nn.Linear(40, 16)
        self.norm = nn.LayerNorm(16) if norm else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        stream = self.make(x)
        return self.read(self.norm(stream + self.down(torch.relu(self.up(stream)))))


@pytest.mark.parametrize("norm", [False, True])
def test_the_error_of_a_residual_stream_is_made_good(norm: bool) -> None:
    """The last layer of a block corrects the error that the residual stream has before the block."""
    torch.manual_seed(0)
    model, x = Block(norm), torch.randn(400, 6)
    network = sc.trace(model, x[:2])
    plan = sc.plan(network, sc.score(network, x, by="obs", progress=False), {"units": 0.6})
    small = sc.cut(model, plan)
    stay = plan.kept["make"]

    def branch(of: nn.Module) -> torch.Tensor:
        return of.down(torch.relu(of.up(of.make(x))))

    def error() -> float:
        with torch.no_grad():
            return float((small.make(x) + branch(small) - (model.make(x) + branch(model))[:, stay]).square().mean())

    before = error()
    mend(refit, small, model, plan, x)
    with torch.no_grad():
        stream = float((small.make(x) - model.make(x)[:, stay]).square().mean())
    assert error() < 0.3 * before
    assert stream < 1e-9 or error() < stream


@pytest.mark.parametrize("groups", [8, 2])
def test_convolutions_in_groups_are_refitted(groups: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=groups), nn.ReLU(),
        nn.Flatten(), nn.Linear(8 * 16, 4),
    )  # fmt: skip
    x = torch.randn(400, 3, 8, 8)
    network = sc.trace(model, x[:2])
    plan = sc.plan(network, sc.score(network, x, by="obs", progress=False), {"units": 0.7})
    small = sc.cut(model, plan)
    weight = small[4].weight.detach().clone()
    before = float((small(x) - model(x)).square().mean())
    sc.repair(small, model, plan, x)
    assert float((small(x) - model(x)).square().mean()) < 0.9 * before
    assert not torch.equal(weight, small[4].weight)


def test_a_layer_whose_result_is_scaled_by_its_module() -> None:
    """The layer is what the program says, whatever its module does besides."""

    class Scaled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 2

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), Scaled(16, 3))
    x = torch.randn(400, 6)
    small, plan = cut_half(model, x)
    before = float((small(x) - model(x)).square().mean())
    sc.repair(small, model, plan, x)
    assert float((small(x) - model(x)).square().mean()) < 0.5 * before


def test_too_few_examples_are_told_and_how_many_would_do() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 3))
    small, plan = cut_half(model, torch.randn(16, 6))
    with pytest.warns(
        UserWarning, match=r"2 is refitted with care only: .* about 4\.\d times as many examples would do"
    ):
        sc.repair(small, model, plan, torch.randn(16, 6))


@pytest.mark.parametrize("noise", [0.01, 1.0, 30.0])
def test_the_ridge_is_the_best_of_all_that_are_known(noise: float) -> None:
    """The error on held-out rows falls and rises once along the ridges, so that not all must be tried."""
    torch.manual_seed(0)
    features, weights = torch.randn(1, 90, 30).double(), torch.randn(1, 30, 4).double()
    missing = features @ weights + noise * torch.randn(1, 90, 4).double()
    fitted, held_out = (
        RegressionMoments.of(features[:, rows], missing[:, rows]) for rows in (slice(60), slice(60, 90))
    )
    errors = {
        ridge: held_out.mean_square(System(RidgeFactor(fitted, ridge, False), fitted.moment).solution)
        for ridge in RIDGES
    }
    best = min(errors, key=errors.__getitem__)
    expected = best if errors[best] < held_out.mean_square(torch.zeros_like(held_out.moment)) else None
    assert select_ridge(fitted, held_out, None, False) == Choice(expected, 0)


def test_a_choice_that_was_made_is_made_again_with_all_rows() -> None:
    torch.manual_seed(0)
    features, missing = torch.randn(2, 50, 6).double(), torch.randn(2, 50, 3).double()
    moments = RegressionMoments.of(features, missing)
    penalised = moments.penalised(1e-2, False)
    expected = torch.linalg.solve(penalised, moments.moment)
    torch.testing.assert_close(solve(moments, None, Choice(1e-2, 0), False), expected)
    assert not bool(solve(moments, None, Choice(None, 0), False).any())


@pytest.mark.parametrize("has_constant", [True, False])
@pytest.mark.parametrize("ridge", RIDGES)
def test_few_rows_are_solved_for_as_their_products_are(ridge: float, has_constant: bool) -> None:
    """In the dual form, for any right sides, from microbatches added up; scales differ and one feature is silent."""
    torch.manual_seed(0)
    features = torch.randn(2, 20, 70, dtype=torch.float64) * torch.logspace(-1, 1, 70) + 0.5
    features[..., 7] = 0
    features[..., -1] = 1 if has_constant else features[..., -1]
    missing, other = torch.randn(2, 20, 4).double(), torch.randn(2, 70, 3).double()
    few = RegressionMoments.of(features[:, :12], missing[:, :12]).with_rows(features[:, 12:], missing[:, 12:])
    assert few.features is not None
    expected = System(RidgeFactor(few, ridge, has_constant), few.moment)
    system = systems_of(few, has_constant)(ridge)
    torch.testing.assert_close(system.solution, expected.solution, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(system.solve(other), expected.solve(other), rtol=1e-6, atol=1e-8)
    many = few.with_rows(features, missing)
    assert many.features is None
    torch.testing.assert_close(many.products.summed(), 2 * features.transpose(1, 2) @ features)
    torch.testing.assert_close(many.moment, 2 * features.transpose(1, 2) @ missing)
    few, many = (RegressionMoments.of(features, missing) for _ in range(2))
    torch.testing.assert_close(few.joined(many).products.summed(), 2 * features.transpose(1, 2) @ features)
    torch.testing.assert_close(few.moment, 2 * many.moment)


def test_values_without_room_go_on_from_where_there_was_room_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wide layers between narrow ones: their values are not held, but those of the narrow ones before them are."""
    torch.manual_seed(0)
    layers = [m for _ in range(4) for m in (nn.Linear(4, 400), nn.ReLU(), nn.Linear(400, 4), nn.ReLU())]
    model, x = nn.Sequential(*layers, nn.Linear(4, 2)), torch.randn(64, 4)
    network = sc.trace(model, x[:2])
    execution = PairedExecution(
        EmbeddedPrunedNetwork.whole(network, {}), split_microbatches(as_batches(x), torch.device("cpu")), memory=10_000
    )
    starts: list[int] = []
    run = type(network.program).run

    def noted(self: Any, values: Any, start: int, *rest: Any, **kwargs: Any) -> Any:
        starts.append(start)
        return run(self, values, start, *rest, **kwargs)

    monkeypatch.setattr(type(network.program), "run", noted)
    nodes = [node for node in network.program.nodes if node.op == "call_function" and "linear" in str(node.target)]
    for node in nodes:
        execution.reach(node)
    assert starts.count(network.program.first) <= 2 * len(execution.microbatches)
    assert starts[-1] > network.program.position[nodes[2]]


def test_memory_does_not_change_a_refit() -> None:
    """Values that do not fit into the memory are computed again, to the same bits."""
    model, _ = grow("residual")
    torch.manual_seed(0)
    x = torch.randn(96, 3, 8, 8)
    small, plan = cut_half(model, x)
    states = []
    for memory in (0, 1 << 30):
        within = EmbeddedPrunedNetwork.of(small, plan.network, recipe_of(model, plan))
        with torch.no_grad():
            refit(PairedExecution(within, split_microbatches(as_batches(x), torch.device("cpu")), memory))
        states.append(within.state)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], plan.network.program.state(name)) for name in states[0])


def test_half_the_demo_network_is_nearly_as_right() -> None:
    """Ranked by weights alone, 256 images without labels: the drop stays below four points."""
    report = sc.prune(
        demo.network(), demo.calibration(), {"macs": 0.5}, by="l2", test=demo.test(), progress=False
    ).report
    assert report.pruned.accuracy is not None and report.dense.accuracy is not None
    assert report.dense.accuracy - report.pruned.accuracy < 0.03


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_and_large_means(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 32), nn.ReLU(), nn.Linear(32, 16, bias=False), nn.ReLU(), nn.Linear(16, 3))
    with torch.no_grad():
        model[0].bias += 100
    model.to(dtype)
    result = sc.prune(model, torch.randn(200, 6, dtype=dtype), {"macs": 0.5}, progress=False)
    assert all(tensor.dtype == dtype for tensor in result.model.state_dict().values())
    assert all(bool(torch.isfinite(tensor).all()) for tensor in result.model.state_dict().values())


def test_one_example_is_enough_not_to_fail() -> None:
    result = sc.prune(nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)), torch.randn(1, 6), {"macs": 0.5})
    assert result.model[0].out_features == 8


def test_a_batch_norm_over_another_axis_takes_no_constant() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 24), nn.Linear(24, 8)
            self.c, self.norm, self.d = nn.Linear(8, 12, bias=False), nn.BatchNorm1d(6), nn.Linear(12, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + self.b(torch.relu(self.a(x)))
            return self.d(torch.relu(self.norm(self.c(x)))).mean(1)

    torch.manual_seed(0)
    model = Net().eval()
    result = sc.prune(model, torch.randn(120, 6, 8), {"macs": 0.6}, progress=False)
    assert torch.equal(result.model.norm.running_mean, model.norm.running_mean)


def test_a_fixed_batch_size() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 24), nn.Linear(24, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(torch.relu(self.a(x.view(4, 8))))

    torch.manual_seed(0)
    result = sc.prune(Fixed(), list(torch.randn(40, 8).split(4)), {"macs": 0.5}, progress=False)
    assert result.model.a.out_features == 12


def test_rows_that_are_flattened_before_a_layer_are_those_of_their_examples() -> None:
    """The same network with and without a reshape gets the same scores."""

    class Flat(nn.Module):
        def __init__(self, inner: nn.Module, flatten: bool) -> None:
            super().__init__()
            self.inner, self.flatten = inner, flatten

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.inner(x.reshape(-1, 5)).view(-1, 7, 3) if self.flatten else self.inner(x)
            return y.mean(1)

    torch.manual_seed(0)
    inner, x = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3)), torch.randn(64, 7, 5)
    scores = []
    for flatten in (False, True):
        network = sc.trace(Flat(inner, flatten), x[:2])
        scores.append(sc.score(network, x, by="obs", progress=False)["inner.0"].values)
    assert torch.allclose(*scores, rtol=1e-3)


def test_options_that_training_does_not_have() -> None:
    model, x = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)), torch.randn(40, 6)
    small, plan = cut_half(model, x)
    with pytest.raises(sc.SecateurError, match="has no option 'stepz'; did you mean 'steps'"):
        sc.repair(small, model, plan, x, how="tune", stepz=1)
    with pytest.raises(sc.SecateurError, match=r"steps=0 .* whole number of steps from 1 up"):
        sc.prune(model, x, {"macs": 0.5}, repair="tune", tuning={"steps": 0})
    other = sc.plan(plan.network, sc.score(plan.network, by="l2"), {"units": 0.3})
    with pytest.raises(sc.SecateurError, match="which is not what this plan leaves"):
        sc.repair(small, model, other, x)


def test_a_plan_of_other_units_of_the_same_number_is_refused() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(64, 4)
    network = sc.trace(model, x)
    plan = sc.plan(network, sc.score(network, by="l1"), keep={"macs": 0.5})
    missing = next(unit for unit in range(8) if unit not in plan.kept["0"])
    other = plan.with_kept({"0": torch.cat([plan.kept["0"][1:], torch.tensor([missing])])})
    small = sc.cut(model, plan)
    before = copy.deepcopy(small.state_dict())
    with pytest.raises(SurgeryError, match="was cut by another plan, which keeps other units of 0"):
        sc.repair(small, model, other, x, progress=False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items())
