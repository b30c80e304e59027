"""Modules whose own code can't say the cut shape run a program of it: what stays, what is refused, what is saved."""

import copy
import hashlib
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from expected_warnings import untrained_networks
from secateur.graph.module_operators import find_operator
from secateur.surgery.trial_cut import TrialCutter
from zoo import grow
from zoo_code import PaddedShortcuts


class Pooled(nn.Module):
    """Its own code holds a hard number, a dropout, a submodule that is called twice, and an optional argument."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.mix = nn.Linear(6, 8), nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(inplace=True))
        self.drop, self.idle, self.out = nn.Dropout(0.5), nn.Identity(), nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor, doubled: bool = False) -> Tensor:
        y = self.inp(x)
        a, b = y[:, :4], y[:, 4:]
        y = self.mix(a) + self.mix(b) * self.scale
        y = self.idle(F.dropout(self.drop(y), 0.5, self.training))
        return self.out(y * 2 if doubled else y)


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pooled, self.last = Pooled(), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.pooled(x))


def halved(network: sc.Network) -> dict[str, Tensor]:
    return {group.name: torch.arange(0, group.size, 2) for group in network.groups}


def cut_half(model: nn.Module, example: Tensor) -> tuple[sc.Network, nn.Module]:
    network = sc.trace(model, example)
    kept = halved(network)
    return network, sc.cut(model, sc.Plan(network, kept, {}, network.cost(kept), network.cost(), {}))


@pytest.fixture
def outer() -> tuple[Outer, Tensor]:
    torch.manual_seed(0)
    model = Outer()
    for _ in range(3):
        model.train()(torch.randn(16, 6))
    return model.eval(), torch.randn(5, 6)


def test_the_smallest_module_runs_a_program_and_the_rest_stays_as_it_is(outer: tuple[Outer, Tensor]) -> None:
    model, x = outer
    network, small = cut_half(model, x)
    assert {group.name: group.size for group in network.groups} == {"pooled.inp": 4, "pooled.mix.0": 4, "pooled.out": 3}
    assert "run a cut program in place of their own code: pooled" in str(network)
    assert type(small) is Outer and isinstance(small.pooled, Pooled) and type(small.pooled).__name__ == "CutPooled"
    assert [type(module) for module in small.pooled.mix] == [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert small.state_dict().keys() == model.state_dict().keys()
    assert small.pooled.mix[0].weight.shape == (2, 2)
    more = torch.randn(9, 6)  # another number of examples
    assert small(more).shape == (9, 2)


def test_a_cut_that_changes_no_number_runs_no_program(outer: tuple[Outer, Tensor]) -> None:
    model, x = outer
    network = sc.trace(model, x)
    assert network.module_programs
    everything = {group.name: torch.arange(group.size) for group in network.groups}
    assert TrialCutter(model).input_shapes(network, everything) == {}


def test_such_a_module_trains_on_as_its_own_code_would(outer: tuple[Outer, Tensor]) -> None:
    model, x = outer
    _, small = cut_half(model, x)
    before = small.pooled.mix[1].running_mean.clone()
    x = torch.randn(64, 6)
    first, second = (small.train()(x) for _ in range(2))
    assert not torch.equal(first, second)  # both dropouts are at work
    assert not torch.equal(before, small.pooled.mix[1].running_mean)
    assert int(small.pooled.mix[1].num_batches_tracked) == int(model.pooled.mix[1].num_batches_tracked) + 4
    first.sum().backward()
    assert all(parameter.grad is not None for parameter in small.parameters())
    small.pooled.drop.p = 0.0
    torch.manual_seed(1)
    dropped = small.pooled(x)
    torch.manual_seed(1)
    y = small.pooled.inp(x)
    y = small.pooled.mix(y[:, :2]) + small.pooled.mix(y[:, 2:]) * small.pooled.scale
    assert torch.allclose(dropped, small.pooled.out(F.dropout(y, 0.5)), atol=1e-6)


def test_calls_of_another_form_are_refused(outer: tuple[Outer, Tensor]) -> None:
    model, x = outer
    _, small = cut_half(model, x)
    assert torch.equal(small.pooled(x), small.pooled(x=x, doubled=False))
    with pytest.raises(sc.SecateurError, match="doubled is True in place of False"):
        small.pooled(x, True)
    with pytest.raises(TypeError):
        small.pooled(x, tripled=True)


class Wide(nn.Module):
    """Its own code asks for the size of the image, and counts channels by a hard number."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        _, _, height, width = x.shape
        return self.last(x.reshape(len(x), 4, height * width).sum(2) / (height * width))


class Lettered(Wide):
    """The same, with a size of images that is written down."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x))
        return self.last(x.reshape(len(x), 4, 64).sum(2) / 64)


@pytest.mark.parametrize("make", [Wide, Lettered])
def test_sizes_of_images_vary_where_the_code_lets_them_and_are_refused_else(make: type[Wide]) -> None:
    torch.manual_seed(0)
    model = make().eval()
    network, small = cut_half(model, torch.randn(3, 3, 8, 8))
    assert list(network.module_programs) == [""] and isinstance(small, make)
    other = torch.randn(2, 3, 6, 10)
    if make is Wide:
        units = torch.tensor([0, 2])
        features = torch.relu(model.conv(other)).mean((2, 3))[:, units]
        assert torch.allclose(small(other), F.linear(features, model.last.weight[:, units], model.last.bias), atol=1e-6)
    else:
        with pytest.raises(sc.SecateurError, match=r"shape \(2, 3, 6, 10\) in place of \(any, 3, 8, 8\)"):
            small(other)


@untrained_networks
def test_saved_and_loaded_bit_for_bit(outer: tuple[Outer, Tensor], tmp_path: Path) -> None:
    model, x = outer
    _, small = cut_half(model, x)
    sc.save(small, tmp_path)
    again = sc.load(Outer(), tmp_path)
    assert torch.equal(again(x), small(x)) and type(again.pooled) is type(small.pooled)
    twice = sc.prune(again, torch.randn(32, 6), keep={"params": 0.8}, progress=False)
    twice.save(tmp_path / "twice")
    assert torch.equal(sc.load(Outer(), tmp_path / "twice")(x), twice.model(x))


def test_a_lambda_and_a_second_cut_of_padded_shortcuts(tmp_path: Path) -> None:
    def make() -> nn.Module:
        model, _ = grow("padded shortcuts in functions")
        for stage, extra in zip(model.stages, (2, 3), strict=True):
            stage.shortcut.function = lambda x, extra=extra: F.pad(x[..., ::2, ::2], (0, 0, 0, 0, extra, extra))
        return model

    model = make()
    network, small = cut_half(model, torch.randn(3, 3, 8, 8))
    assert list(network.module_programs) == ["stages.0.shortcut", "stages.1.shortcut"]
    assert isinstance(model, PaddedShortcuts) and type(small.stages[0]) is type(model.stages[0])
    sc.save(small, tmp_path)
    x = torch.randn(2, 3, 12, 12)  # another size of image
    assert torch.equal(sc.load(make(), tmp_path)(x), small(x))
    assert torch.equal(copy.deepcopy(small)(x), small(x))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("operator", "aten.from_file.default", "not an operator"),
        ("operator", "os.system", "not an operator"),
        ("args", {"tuple": [{"value": "nowhere"}]}, "which nothing gives"),
        ("args", [], "can't be read"),
        ("args", {"tuple": [{"state": "weight.__class__"}]}, "which nothing gives"),
    ],
)
def test_a_recipe_with_another_program_is_refused(tmp_path: Path, field: str, value: object, message: str) -> None:
    model, x = grow("padded shortcuts in functions")
    _, small = cut_half(model, x)
    sc.save(small, tmp_path)
    path = tmp_path / "recipe.json"
    written = json.loads(path.read_text())
    written["module_programs"]["stages.0.shortcut"]["steps"][0][field] = value
    _rewrite(path, written)
    fresh, _ = grow("padded shortcuts in functions")
    before = copy.deepcopy(fresh)
    with pytest.raises(sc.SecateurError, match=message):
        sc.load(fresh, tmp_path)
    assert type(fresh.stages[0].shortcut) is type(before.stages[0].shortcut)


def _rewrite(path: Path, written: dict[str, object]) -> None:
    del written["checksum"]
    body = json.dumps(written, indent=1).rstrip()[:-1].rstrip()
    path.write_text(body + f',\n "checksum": "{hashlib.sha256(body.encode()).hexdigest()}"\n}}\n')


@pytest.mark.parametrize(
    "name", ["aten.save.default", "aten.add_.Tensor", "aten.pad", "prims.add.default", "operator.call"]
)
def test_operators_that_a_program_may_not_hold(name: str) -> None:
    with pytest.raises(sc.SecateurError, match="not an operator"):
        find_operator(name)
    assert find_operator("aten.pad.default") is torch.ops.aten.pad.default
