"""Repairs in closed form."""

from typing import Any

import pytest
import torch
from torch import nn

import secateur as sc
from secateur import demo
from secateur.recovery.repair import REPAIRS
from zoo import grow


def cut_half(model: nn.Module, x: torch.Tensor) -> tuple[nn.Module, sc.Plan]:
    network = sc.trace(model, x)
    plan = sc.plan(network, sc.score(network, by="l2"), {"units": 0.6})
    return sc.cut(model, plan), plan


def test_batch_norms_give_the_dense_networks_means_and_variances() -> None:
    """Also of examples that are nothing like those the dense network's own statistics came from."""
    model, _ = grow("residual")
    torch.manual_seed(0)
    x = 3 * torch.randn(60, 3, 8, 8) + 1
    small, plan = cut_half(model, x)
    assert sc.repair(small, model, plan, list(x.split(20)), how="batchnorm") is small
    wanted: dict[str, torch.Tensor] = {}
    found: dict[str, torch.Tensor] = {}
    for network, seen in ((model, wanted), (small, found)):
        for name in ("stem.1", "bn1", "bn2"):
            network.get_submodule(name).register_forward_hook(
                lambda module, args, output, name=name, seen=seen: seen.update({name: output.detach().clone()})
            )
        with torch.no_grad():
            network(x)
    for name, group in (("stem.1", "stem.0"), ("bn1", "conv1"), ("bn2", "stem.0")):
        dense = wanted[name][:, plan.kept[group]]
        assert torch.allclose(found[name].mean((0, 2, 3)), dense.mean((0, 2, 3)), atol=1e-4)
        assert torch.allclose(found[name].std((0, 2, 3)), dense.std((0, 2, 3)), rtol=1e-3)
    assert not any(module.training for module in small.modules())


def test_nothing_cut_nothing_changed() -> None:
    model, _ = grow("residual")
    network = sc.trace(model, torch.randn(2, 3, 8, 8))
    plan = sc.plan(network, sc.score(network, by="l2"), {"units": 1.0})
    small = sc.repair(sc.cut(model, plan), model, plan, torch.randn(50, 3, 8, 8), how="batchnorm")
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


def test_a_repair_that_does_harm_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def harm(small: nn.Module, model: nn.Module, batches: Any, recipe: Any, network: Any) -> None:
        small[2].bias.data += torch.tensor([5.0, 0.0, 0.0])

    monkeypatch.setitem(REPAIRS, "harm", harm)
    model = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3))
    data = list(torch.randn(64, 6).split(8))
    unmended = sc.prune(model, data, {"macs": 0.5}, by="l1", repair=None, progress=False)
    result = sc.prune(model, data, {"macs": 0.5}, by="l1", repair="harm", progress=False)
    assert torch.equal(result.model[2].bias, unmended.model[2].bias)
    assert "harm did not bring it nearer" in str(result.report)


def test_an_unknown_repair_lists_the_known() -> None:
    model = grow("mlp")[0]
    small, plan = cut_half(model, torch.randn(9, 6))
    with pytest.raises(sc.SecateurError, match="no repair is named 'prayer'; known are batchnorm, refit"):
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


def test_a_layer_with_a_way_of_its_own_is_named_and_left() -> None:
    class Scaled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 2

    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), Scaled(8, 3))
    x = torch.randn(40, 6)
    network = sc.trace(model, x)
    plan = sc.plan(network, sc.score(network, by="l2"), {"units": 0.5})
    small = sc.cut(model, plan)
    weight = small[2].weight.clone()
    with pytest.warns(UserWarning, match="2 was not refitted: Scaled computes something of its own"):
        sc.repair(small, model, plan, x)
    assert torch.equal(weight, small[2].weight)


def test_half_the_demo_network_is_nearly_as_right() -> None:
    """Ranked by weights alone, 256 images without labels: the drop stays below four points."""
    report = sc.prune(
        demo.network(), demo.calibration(), {"macs": 0.5}, by="l2", test=demo.test(), progress=False
    ).report
    assert report.pruned.accuracy is not None and report.dense.accuracy is not None
    assert report.dense.accuracy - report.pruned.accuracy < 0.04
