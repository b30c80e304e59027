"""Surgery on what surrounds the parameters: attributes, optimizers, dropout, gradients; and models that are wrong."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

import secateur as sc
from live_bytes import LiveBytes
from secateur.coupling.plan import Plan
from secateur.surgery.apply_recipe import slice_tensor
from zoo import grow


def halved(name: str) -> tuple[nn.Module, sc.Network, Plan]:
    model, example = grow(name)
    network = sc.trace(model, example)
    return model, network, sc.plan(network, sc.score(network, by="l2"), keep={"units": 0.6})


def test_attributes_agree_with_the_tensors() -> None:
    model, _, plan = halved("inverted residual")
    small = sc.cut(model, plan)
    counts = {name: len(kept) for name, kept in plan.kept.items()}
    assert small.depthwise[0].groups == small.depthwise[0].out_channels == counts["expand.0"]
    assert small.expand[1].num_features == counts["expand.0"]
    assert small.fc.in_features == counts["stem"]
    model, _, plan = halved("encoder fused")
    small = sc.cut(model, plan)
    counts = {name: len(kept) for name, kept in plan.kept.items()}
    assert small.attention.num_heads == counts["attention.qkv"]
    assert small.norm1.normalized_shape == small.norm3.normalized_shape == (counts["embed"],)
    assert small.embed.embedding_dim == counts["embed"]
    model, _, plan = halved("group norm")
    small = sc.cut(model, plan)
    assert small.norm1.num_groups == len(plan.kept["conv1"])
    assert small.norm1.num_channels == 2 * len(plan.kept["conv1"])
    assert small.norm2.num_channels == len(plan.kept["conv2"])


def test_in_place_the_parameters_stay_the_same_objects() -> None:
    model, network, plan = halved("residual")
    before = {name: id(parameter) for name, parameter in model.named_parameters()}
    copied = sc.cut(model, plan)
    small = sc.cut(model, plan, inplace=True)
    assert small is model
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == before
    x = network.example.args[0]
    with torch.no_grad():
        assert torch.equal(small(x), copied(x))


OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, 0.01, momentum=0.9),
    "Adam": lambda p: torch.optim.Adam(p, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p),
    "RMSprop": lambda p: torch.optim.RMSprop(p, momentum=0.9, centered=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p),
    "NAdam": lambda p: torch.optim.NAdam(p),
    "Adafactor": lambda p: torch.optim.Adafactor(p),
}


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> None:
    optimizer.zero_grad()
    F.cross_entropy(model(x), torch.tensor([0, 1, 2])).backward()
    optimizer.step()


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_optimizers_state_is_cut_with_the_parameters(name: str, inplace: bool) -> None:
    """A unit that was dead all along: training goes on as if it had never been there."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    model[0].weight.data[2], model[0].bias.data[2], model[2].weight.data[:, 2] = 0, -1, 0
    without = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    alive = torch.tensor([0, 1, 3, 4, 5])
    without[0].weight.data, without[0].bias.data = model[0].weight.data[alive], model[0].bias.data[alive]
    without[2].weight.data, without[2].bias.data = model[2].weight.data[:, alive], model[2].bias.data.clone()
    optimizers = [OPTIMIZERS[name](m.parameters()) for m in (model, without)]
    x = torch.randn(3, 4)
    for _ in range(3):
        for trained, optimizer in zip((model, without), optimizers, strict=True):
            step(trained, optimizer, x)
    network = sc.trace(model, x)
    plan = Plan(network, {"0": alive}, {}, network.cost(), network.cost(), {})
    small = sc.cut(model, plan, inplace=inplace, optimizer=optimizers[0])
    assert {id(p) for g in optimizers[0].param_groups for p in g["params"]} == {id(p) for p in small.parameters()}
    for _ in range(3):
        for trained, optimizer in zip((small, without), optimizers, strict=True):
            step(trained, optimizer, x)
    if (
        name != "Adafactor"
    ):  # its step is scaled by the root mean square of the whole parameter, the dead unit's included
        for a, b in zip(small.parameters(), without.parameters(), strict=True):
            assert torch.allclose(a, b, atol=1e-6)


def test_an_optimizer_that_can_not_be_cut_is_left_alone() -> None:
    model, network, plan = halved("mlp")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    optimizer.state[model[0].weight] = {"flat": torch.zeros(60)}
    parameter_ids = [id(p) for p in optimizer.param_groups[0]["params"]]
    with pytest.raises(sc.SecateurError, match=r"'flat' of 0\.weight"):
        sc.cut(model, plan, optimizer=optimizer)
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == parameter_ids


def test_new_biases_are_trained_too() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Sigmoid(), nn.Linear(6, 3, bias=False))
    network = sc.trace(model, torch.randn(3, 4))
    scores = sc.score(network, torch.randn(50, 4), by="apoz", progress=False)
    optimizer = torch.optim.Adam(model.parameters())
    small = sc.cut(model, sc.plan(network, scores, {"units": 0.5}), optimizer=optimizer)
    assert small[2].bias is not None
    assert any(parameter is small[2].bias for parameter in optimizer.param_groups[0]["params"])


COMPUTED_WEIGHTS = {
    "weight norm": parametrizations.weight_norm,
    "weight norm by hooks": nn.utils.weight_norm,
    "spectral norm by hooks": nn.utils.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "mask": lambda layer: prune.l1_unstructured(layer, "weight", 0.3),
    "wrapped": nn.DataParallel,
}


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("name", COMPUTED_WEIGHTS)
def test_an_optimizer_gets_the_weights_that_were_computed(name: str, inplace: bool) -> None:
    torch.manual_seed(0)
    first = COMPUTED_WEIGHTS[name](nn.Linear(4, 6))
    model, x = nn.Sequential(first, nn.ReLU(), nn.Linear(6, 3)), torch.randn(3, 4)
    names = {parameter: name for name, parameter in model.named_parameters()}
    computed = [parameter for parameter, name in names.items() if name.startswith("0.") and "bias" not in name]
    others = [parameter for parameter in names if not any(parameter is other for other in computed)]
    optimizer = torch.optim.Adam([{"params": computed, "lr": 0.01}, {"params": others, "lr": 0.1}])
    step(model, optimizer, x)
    network = sc.trace(model, x)
    plan = sc.plan(network, sc.score(network, by="l1"), keep={"units": 0.5})
    small = sc.cut(model, plan, optimizer=optimizer, inplace=inplace)
    groups = [{id(parameter) for parameter in group["params"]} for group in optimizer.param_groups]
    assert groups == [{id(small[0].weight)}, {id(small[0].bias), id(small[2].weight), id(small[2].bias)}]
    assert all(state["exp_avg"].shape == parameter.shape for parameter, state in optimizer.state.items())
    assert small[2].weight in optimizer.state
    assert (small[0].weight in optimizer.state) == (name == "wrapped")
    step(small, optimizer, x)


def test_dropout_rates_shrink_when_asked() -> None:
    model, _, plan = halved("vgg")
    share = len(plan.kept["head.1"]) / 10
    assert sc.cut(model, plan).head[3].p == 0.5
    assert sc.cut(model, plan, scale_dropout=True).head[3].p == pytest.approx(0.5 * share**0.5)
    assert model.head[3].p == 0.5


def test_gradients_and_frozen_parameters_are_cut_along() -> None:
    model, network, plan = halved("vgg")
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.head[4].bias.requires_grad_(True)
    F.cross_entropy(model(network.example.args[0]), torch.tensor([0, 1])).backward()
    small = sc.cut(model, plan)
    assert [p.requires_grad for p in small.parameters()] == [p.requires_grad for p in model.parameters()]
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    gradient = model.head[4].bias.grad
    assert torch.equal(sc.cut(model, plan, inplace=True).head[4].bias.grad, gradient)


def test_the_training_mode_comes_back() -> None:
    model, _, plan = halved("residual")
    model.train()
    model.bn1.eval()
    small = sc.cut(model, plan)
    assert small.training and not small.bn1.training and model.training


def test_another_model_is_refused() -> None:
    _, _, plan = halved("mlp")
    with pytest.raises(sc.SecateurError, match=r"0\.weight has shape \(11, 6\).*\(10, 6\)"):
        sc.cut(nn.Sequential(nn.Linear(6, 11), nn.ReLU(), nn.Linear(11, 8), nn.Tanh(), nn.Linear(8, 3)), plan)


def test_a_cut_that_computes_something_else_is_refused_and_the_model_is_as_it_was() -> None:
    class Sneaky(nn.Module):
        """Its code takes another way once it is smaller, which it does not tell while it is traced."""

        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc2, self.full = nn.Linear(4, 6), nn.Linear(6, 3), 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(self.fc1(x))
            return self.fc2(y) if y.shape[1] >= self.full else self.fc2(y) + 1

    torch.manual_seed(0)
    model = Sneaky()
    network = sc.trace(model, torch.randn(2, 4))
    model.full = 3
    before = copy.deepcopy(model.state_dict())
    kept = {"fc1": torch.tensor([1])}
    with pytest.raises(sc.SecateurError, match="differs from the masked run"):
        sc.cut(model, Plan(network, kept, {}, network.cost(), network.cost(), {}), inplace=True)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_model_that_can_not_be_copied_says_so() -> None:
    class Uncopyable(nn.Sequential):
        def __deepcopy__(self, memo: Any) -> Any:
            raise RuntimeError("there can be only one")

    model, network, plan = halved("mlp")
    with pytest.raises(sc.SecateurError, match="there can be only one"):
        sc.cut(Uncopyable(*model), plan)


@pytest.mark.parametrize("length", [1, 5, 49], ids="runs of {}".format)
@pytest.mark.parametrize("trailing", [(), (3, 3)], ids=["linear", "convolution"])
def test_large_weights_lose_both_axes_at_once_as_one_after_the_other(length: int, trailing: tuple[int, ...]) -> None:
    """Behind a flattened image the inputs that stay lie in runs, one for each channel."""
    weight = torch.randn(300, 5 * 49, *trailing)
    outputs = torch.randperm(300)[:110].sort().values
    channels = torch.randperm(5 * 49 // length)[: 100 // length].sort().values
    inputs = (channels[:, None] * length + torch.arange(length)).flatten()
    small = slice_tensor(weight, {1: inputs, 0: outputs})
    assert torch.equal(small, weight.index_select(0, outputs).index_select(1, inputs))
    assert small.is_contiguous()
    assert small.untyped_storage().nbytes() == 4 * small.numel()


def test_a_cut_holds_what_stays_and_no_second_whole_model() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 4096), nn.ReLU(), nn.Linear(4096, 64), nn.LayerNorm(64))
    network = sc.trace(model, torch.randn(2, 64))
    plan = sc.plan(network, sc.score(network, by="l2"), {"units": 0.125})
    whole = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    with LiveBytes() as live:
        small = sc.cut(model, plan)
    assert live.peak < 0.3 * whole
    memory = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    assert not memory & {parameter.untyped_storage().data_ptr() for parameter in small.parameters()}
    assert all(parameter.requires_grad for parameter in small.parameters())
