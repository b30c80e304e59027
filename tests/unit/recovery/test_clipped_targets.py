"""Targets beyond the bounds of a nonlinearity, behind norms and in sums."""

from collections.abc import Callable
from math import inf

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import secateur as sc
from expected_warnings import untrained_networks
from secateur import demo
from secateur.masking.linear_layers import layers_of
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.output_targets import OutputTargets
from secateur.recovery.refit import refit
from secateur.recovery.targets import output_context
from solved_repairs import repaired_by

pytestmark = untrained_networks


@pytest.mark.parametrize("nonlinearity", [nn.ReLU, nn.ReLU6, lambda: nn.Hardtanh(-0.5, 0.7), nn.Identity])
@given(seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_whatever_lies_between_the_bounds_comes_to_the_same(nonlinearity: Callable[[], nn.Module], seed: int) -> None:
    """Either end of what a layer may give comes to what the dense network made, also behind a negative norm."""
    torch.manual_seed(seed)
    norm = nn.BatchNorm1d(5)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            tensor.normal_(0, 2)
    behind = nonlinearity()
    model = nn.Sequential(nn.Linear(4, 5), norm, behind, nn.Linear(5, 2)).eval()
    network = sc.trace(model, torch.randn(2, 4))
    layer = layers_of(network)[0]
    cut_network = EmbeddedPrunedNetwork.of_kept(network, {"0": torch.arange(5)})
    with torch.no_grad():
        output = model[0](torch.randn(20, 4))
        targets = OutputTargets.of(output_context(network, layer), cut_network)
        target_interval = targets.interval(lambda value: value, {layer.node: output}, {})
        target = behind(norm(output))
        for end in (target_interval.target, target_interval.lower, target_interval.upper):
            reached = behind(norm(torch.where(end.isinf(), end.sign() * 50 + output, end)))
            assert torch.allclose(reached, target, atol=1e-4)
        assert bool((target_interval.lower <= target_interval.upper + 1e-5).all())


def test_what_a_norm_multiplies_by_zero_has_finite_targets() -> None:
    """A block whose last batch norm is zero, as blocks are initialised, gives the same whatever its layers give."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)).eval()
    nn.init.zeros_(model[3].weight)
    x = torch.randn(64, 4)
    network = sc.trace(model, x[:2])
    plan = sc.plan(network, sc.score(network, by="l2"), {"units": 0.6})
    small = sc.repair(sc.cut(model, plan), model, plan, x, "refit", progress=False)
    assert all(bool(parameter.isfinite().all()) for parameter in small.parameters())
    assert torch.allclose(small(x), model(x), atol=1e-5)


def test_what_a_sum_gets_besides_is_part_of_the_goal() -> None:
    """The bound of the nonlinearity behind a sum moves by the error of the residual stream."""
    model = demo.network()
    network = sc.trace(model, demo.calibration()[0][:2])
    contexts = {layer.name: output_context(network, layer) for layer in layers_of(network)}
    inner = contexts["layer1.1.conv2"]
    assert (
        (inner.low, inner.high) == (0, inf) and inner.other is not None and inner.pre_activation.name.startswith("add")
    )
    assert contexts["fc"].cuts_off is False and contexts["layer1.0.conv2"].cuts_off is False  # its skip comes later


def test_a_refit_through_the_nonlinearity_leaves_less_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most outputs are cut off: what is solved for with that in mind is nearer where it counts."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 30), nn.ReLU(), nn.Linear(30, 12), nn.ReLU(), nn.Linear(12, 4))
    model[2].bias.data -= 0.4
    x = torch.randn(640, 10)
    network = sc.trace(model, x[:2])
    plan = sc.Plan(network, {"0": torch.arange(12), "2": torch.arange(12)}, {}, network.cost(), network.cost(), {})

    def error(small: nn.Module) -> float:
        with torch.no_grad():
            return float((small[:4](x) - model[:4](x)).square().mean())

    through = error(repaired_by(model, plan, x, refit))
    monkeypatch.setattr("secateur.recovery.targets.clipped_bounds", lambda user: (-inf, inf))
    plain = error(repaired_by(model, plan, x, refit))
    assert through < 0.9 * plain
