"""Faults that users of other pruners run into; each must stay impossible here."""

import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from zoo import grow


def network_of(*layers: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*layers).eval()


def small_convolutions() -> nn.Module:
    return network_of(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.Flatten(), nn.Linear(80, 4)
    )


def cut_to(model: nn.Module, example: Any, share: float, **options: Any) -> nn.Module:
    network = sc.trace(model, example)
    plan = sc.plan(network, sc.score(network, by="l2"), {"params": share}, **options)
    return sc.cut(model, plan)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_more_pruning_never_leaves_a_larger_network() -> None:
    model, example = small_convolutions(), torch.randn(2, 3, 8, 8)
    sizes = [parameters(cut_to(model, example, share, allocation="global")) for share in (0.9, 0.7, 0.5, 0.3, 0.2)]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == len(sizes)


def test_a_model_without_gradients_is_cut_all_the_same() -> None:
    model, example = small_convolutions(), torch.randn(2, 3, 8, 8)
    with_gradients = cut_to(model, example, 0.5)
    model.requires_grad_(False)
    without = cut_to(model, example, 0.5)
    assert parameters(without) == parameters(with_gradients) < parameters(model)
    assert not any(parameter.requires_grad for parameter in without.parameters())


def test_the_classifier_is_protected_by_itself() -> None:
    small = cut_to(small_convolutions(), torch.randn(2, 3, 8, 8), 0.2)
    assert small(torch.randn(2, 3, 8, 8)).shape == (2, 4)


class FirstHalf(nn.Module):
    """`chunk()[0]`: the other half is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 16), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.first(x).chunk(2, -1)[0]))


class DepthMultiplier(nn.Module):
    """A convolution with a group for each channel and two filters for each group."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.depthwise = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 12, 3, groups=6)
        self.last = nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.relu(self.depthwise(F.relu(self.first(x)))))


@pytest.mark.parametrize(
    ("model", "example", "layer"),
    [(FirstHalf, (2, 6), "first"), (DepthMultiplier, (2, 3, 6, 6), "first")],
)
def test_what_crashes_others_half_way_is_cut(model: type[nn.Module], example: tuple[int, ...], layer: str) -> None:
    dense = model().eval()
    before = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
    small = cut_to(dense, torch.randn(example), 0.6)
    assert small.get_submodule(layer).weight.shape[0] < dense.get_submodule(layer).weight.shape[0]
    assert small(torch.randn(example)).shape == dense(torch.randn(example)).shape
    assert all(torch.equal(before[name], tensor) for name, tensor in dense.state_dict().items())


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("glu by chunk", "inner"),
        ("cross attention", "attention"),
        ("torch encoder", "encoder.layers.0.self_attn"),
        ("shuffles", "conv3"),
        ("einsums", "inner"),
        ("bare parameters", "filters"),
        ("lstm", "layers"),
        ("gru", "layers"),
    ],
)
def test_what_others_leave_untouched_or_crash_on_is_cut(name: str, group: str) -> None:
    model, example = grow(name)
    network = sc.trace(model, example)
    kept = {group: torch.arange(network[group].size - 1)}
    small = sc.cut(model, sc.Plan(network, kept, {}, network.cost(kept), network.cost(), {}))
    assert parameters(small) < parameters(model)


class Complaining(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] != 3:
            raise ValueError("three numbers for each example, please")
        return self.first(x)


def test_the_models_own_error_is_shown_of_faults() -> None:
    with pytest.raises(sc.SecateurError, match="three numbers for each example, please"):
        sc.trace(Complaining(), torch.randn(2, 5))


def test_no_public_function_has_a_default_that_is_written_to() -> None:
    for name in sc.__all__:
        function = getattr(sc, name)
        if not inspect.isfunction(function):
            continue
        for parameter in inspect.signature(function).parameters.values():
            assert not isinstance(parameter.default, list | dict | set), (name, parameter)


def test_the_training_mode_and_the_optimizer_follow() -> None:
    model = small_convolutions().train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    network = sc.trace(model, torch.randn(2, 3, 8, 8))
    plan = sc.plan(network, sc.score(network, by="l2"), {"params": 0.5})
    small = sc.cut(model, plan, optimizer=optimizer)
    assert model.training and small.training and all(module.training for module in small.modules())
    assert {id(p) for group in optimizer.param_groups for p in group["params"]} == {id(p) for p in small.parameters()}


def test_channel_counts_that_kernels_like() -> None:
    model = network_of(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 24, 3), nn.ReLU(), nn.Flatten(), nn.Linear(384, 4))
    small = cut_to(model, torch.randn(2, 3, 8, 8), 0.5, round_to=8)
    assert small[0].out_channels % 8 == 0 and small[2].out_channels % 8 == 0


def test_a_removed_channel_leaves_no_shift_of_its_batch_norm_behind() -> None:
    model = small_convolutions()
    model[1].bias.data.fill_(3.0)
    network = sc.trace(model, torch.randn(2, 3, 8, 8))
    kept = {"0": torch.arange(5)}
    small = sc.cut(model, sc.Plan(network, kept, {}, network.cost(kept), network.cost(), {}))
    x = torch.randn(4, 3, 8, 8)
    silenced = model[:3](x)
    silenced[:, 5] = 0
    assert torch.allclose(small(x), model[3:](silenced), atol=1e-5)
