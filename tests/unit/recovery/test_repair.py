"""Repairs in closed form."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

import secateur as sc
from expected_warnings import untrained_networks
from repaired_networks import cut_two_fifths, repair_alone
from secateur import demo
from secateur.errors import SurgeryError
from secateur.recovery.batchnorm import match_batchnorm
from zoo import grow

pytestmark = untrained_networks


def test_batch_norms_give_the_dense_networks_means_and_variances() -> None:
    """Also of examples that are nothing like those the dense network's own statistics came from."""
    model, _ = grow("residual")
    torch.manual_seed(0)
    x = 3 * torch.randn(60, 3, 8, 8) + 1
    small, plan = cut_two_fifths(model, x)
    repair_alone(match_batchnorm, small, model, plan, x)
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
    repair_alone(match_batchnorm, small, model, plan, torch.randn(50, 3, 8, 8))
    for name, buffer in small.named_buffers():
        assert torch.allclose(buffer, model.get_buffer(name), rtol=1e-4, atol=1e-5)


def test_a_model_without_batch_norm_is_as_it_was() -> None:
    model = grow("mlp")[0]
    small, plan = cut_two_fifths(model, torch.randn(9, 6))
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    sc.repair(small, model, plan, torch.randn(9, 6), how="batchnorm")
    assert all(torch.equal(before[name], tensor) for name, tensor in small.state_dict().items())


def test_examples_that_the_model_refuses_change_nothing() -> None:
    model, x = grow("residual")
    small, plan = cut_two_fifths(model, x)
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


def test_an_unknown_repair_lists_the_known() -> None:
    model = grow("mlp")[0]
    small, plan = cut_two_fifths(model, torch.randn(9, 6))
    with pytest.raises(
        sc.SecateurError, match="no repair is named 'prayer'; known are mean, batchnorm, refit, adapt, tune"
    ):
        sc.repair(small, model, plan, torch.randn(9, 6), how="prayer")
    with pytest.raises(sc.SecateurError, match="no repair is named 'prayer'"):
        sc.prune(model, torch.randn(9, 6), {"macs": 0.5}, repair="prayer")


def test_half_the_demo_network_is_nearly_as_right() -> None:
    """Ranked by weights alone, 96 images without labels: the drop stays below three points."""
    report = sc.prune(
        demo.network(), demo.calibration()[:3], {"macs": 0.5}, by="l2", test=demo.test()[:32], progress=False
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


def test_a_fixed_batch_size() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 24), nn.Linear(24, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(torch.relu(self.a(x.view(4, 8))))

    torch.manual_seed(0)
    result = sc.prune(Fixed(), list(torch.randn(40, 8).split(4)), {"macs": 0.5}, target="any", progress=False)
    assert result.model.a.out_features == 12


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
