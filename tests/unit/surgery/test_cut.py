"""Surgery on what surrounds the parameters: attributes, optimizers, dropout, gradients; and models that are wrong."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import secateur as sc
from half_cuts import halved
from live_bytes import LiveBytes
from secateur.coupling.plan import Plan
from secateur.surgery.apply_recipe import slice_tensor


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


def test_new_biases_are_trained_too() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Sigmoid(), nn.Linear(6, 3, bias=False))
    network = sc.trace(model, torch.randn(3, 4))
    scores = sc.score(network, torch.randn(50, 4), by="apoz", progress=False)
    optimizer = torch.optim.Adam(model.parameters())
    small = sc.cut(model, sc.plan(network, scores, {"units": 0.5}), optimizer=optimizer)
    assert small[2].bias is not None
    assert any(parameter is small[2].bias for parameter in optimizer.param_groups[0]["params"])


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
