"""Wrapped and compiled models: what they hold is traced, cut and saved, so that files load onto the plain class."""

from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import secateur as sc
from expected_warnings import untrained_networks
from secateur.cli.named_models import model_from

X = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))


class Plain(nn.Module):
    def __init__(self, wrap: Callable[[nn.Module], Any] = lambda module: module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(6, 12)
        self.body = wrap(nn.Sequential(nn.ReLU(), nn.Linear(12, 10), nn.ReLU()))
        self.last = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.body(self.first(x)))


def compiled(model: nn.Module) -> Any:
    return torch.compile(model, backend="eager")


def compiled_in_place() -> nn.Module:
    model = Plain()
    model.compile(backend="eager")
    return model


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'init'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


WRAPPED: dict[str, Callable[[], Any]] = {
    "data parallel": lambda: nn.DataParallel(Plain()),
    "distributed and compiled": lambda: compiled(DistributedDataParallel(Plain())),
    "compiled in place": compiled_in_place,
    "compiled inside": lambda: Plain(compiled),
    "data parallel inside": lambda: Plain(nn.DataParallel),
}


@pytest.mark.parametrize("kind", WRAPPED)
@untrained_networks
def test_wrapped_models_are_looked_through(kind: str, tmp_path: Path, processes: None) -> None:
    model = WRAPPED[kind]().eval()
    names, output = list(model.state_dict()), model(X)
    result = sc.prune(model, X, {"params": 0.6}, by="l1", repair="refit", progress=False)
    assert list(model.state_dict()) == names
    assert torch.equal(model(X), output)
    assert type(result.model) is Plain
    assert {name for name, _ in result.model.named_parameters()} == {name for name, _ in Plain().named_parameters()}
    result.save(tmp_path)
    for fresh in (Plain(), WRAPPED[kind]()):
        assert torch.allclose(sc.load(fresh, tmp_path)(X), result.model(X))


@pytest.mark.parametrize("kind", WRAPPED)
def test_results_of_the_plain_class_load_onto_wrapped_models(kind: str, tmp_path: Path, processes: None) -> None:
    result = sc.prune(Plain(), X, {"params": 0.6}, by="l1", repair=None, progress=False)
    result.save(tmp_path)
    assert torch.equal(sc.load(WRAPPED[kind](), tmp_path)(X), result.model.eval()(X))


def test_an_optimizer_goes_on_from_a_wrapped_model(processes: None) -> None:
    model = DistributedDataParallel(Plain())
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model(X).square().mean().backward()
    optimizer.step()
    network = sc.trace(model, X)
    plan = sc.plan(network, sc.score(network, by="l1"), {"units": 0.5})
    small = sc.cut(model, plan, optimizer=optimizer)
    assert {id(parameter) for parameter in optimizer.param_groups[0]["params"]} == {id(p) for p in small.parameters()}


def fresh() -> nn.Module:
    return nn.DataParallel(Plain())


def prefixed(prefix: str) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {prefix + name: torch.randn_like(tensor) for name, tensor in Plain().state_dict().items()}


CHECKPOINTS: dict[str, Any] = {
    "plain": prefixed(""),
    "module": prefixed("module."),
    "compiled": prefixed("_orig_mod."),
    "both": prefixed("_orig_mod.module."),
    "inside": {name.replace("body.", "body._orig_mod."): tensor for name, tensor in prefixed("").items()},
    "nested": {"state_dict": prefixed("module."), "epoch": 3, "args": Namespace(lr=0.1)},
    "nested twice": {"ema": {"module": prefixed("")}, "optimizer": {"state": {}}},
    "lightning": {"state_dict": prefixed("net."), "hyper_parameters": {"net": 3}},
    "average": {"model": {"n_averaged": torch.tensor(2), **prefixed("module.")}},
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_checkpoints_as_training_scripts_write_them(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(CHECKPOINTS[kind], path)
    state = model_from("test_wrappers:fresh", path, None).state_dict()
    expected = prefixed("")
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())


def test_prefixes_in_safetensors_and_checkpoints_that_do_not_fit(tmp_path: Path) -> None:
    save_file(prefixed("module."), tmp_path / "weights.safetensors")
    state = model_from("test_wrappers:fresh", tmp_path / "weights.safetensors", None).state_dict()
    assert torch.equal(state["last.bias"], prefixed("")["last.bias"])
    for content in ({"epoch": 3}, {"state_dict": {"other.weight": torch.zeros(3)}}, [1]):
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(sc.SecateurError, match=r"(?s)other\.pt does not fit Plain.*Missing key.*first.weight"):
            model_from("test_wrappers:fresh", tmp_path / "other.pt", None)
