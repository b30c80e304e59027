"""The base of all training methods: hooks, counted steps, states; and states that earlier versions wrote."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from secateur.data.conversion import as_batches
from secateur.errors import OptionError, SurgeryError
from secateur.sparsity import SPP, Unification
from secateur.training import TaylorSchedule, TrainingMethod
from secateur.training.loop import TrainingLoop, TrainingSettings

EARLIER = Path(__file__).parents[2] / "golden" / "saved by 0.9"
Start = Callable[[nn.Module, torch.optim.Optimizer], TrainingMethod]
METHODS: dict[str, Start] = {
    "spp": lambda model, optimizer: SPP(model, images(), optimizer, {"columns": 0.5}, every=1, skip=[]),
    "unification": lambda model, optimizer: Unification(model, optimizer, shape=(1, 4), every=2),
    "taylor": lambda model, optimizer: TaylorSchedule(
        model, images(), optimizer, {"units": 0.5}, every=2, units_per_step=1
    ),
}


def exact(*shape: int, step: int = 7) -> Tensor:
    """Numbers that every machine computes alike."""
    return ((torch.arange(torch.Size(shape).numel()) * step) % 11 - 5).view(shape) / 8


def images() -> Tensor:
    return exact(8, 1, 6, 6, step=5)


def network(width: int = 4) -> nn.Sequential:
    layers = [nn.Conv2d(1, width, 3), nn.ReLU(), nn.Conv2d(width, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4)]
    model = nn.Sequential(*layers).eval()
    with torch.no_grad():
        for step, parameter in enumerate(model.parameters(), 2):
            parameter.copy_(exact(*parameter.shape, step=step))
    return model


def started(name: str, width: int = 4) -> tuple[nn.Sequential, torch.optim.Adam, TrainingMethod]:
    model = network(width)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    return model, optimizer, METHODS[name](model, optimizer)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images()), torch.arange(8) % 4).backward()
        optimizer.step()


def flat(state: Any) -> list[Any]:
    if isinstance(state, Mapping):
        return [leaf for key in sorted(state) for leaf in (key, *flat(state[key]))]
    return [state.tolist()] if isinstance(state, Tensor) else [state]


@pytest.mark.parametrize("name", METHODS)
def test_states_of_version_0_9_are_resumed_from(name: str, tmp_path: Path) -> None:
    shutil.copy(EARLIER / f"{name}.safetensors", tmp_path)
    model, optimizer, method = started(name)
    settings = TrainingSettings(batch_size=8, folder=tmp_path)
    loop = TrainingLoop(model, network(), as_batches((images(), torch.arange(8) % 4)), optimizer, settings)
    assert loop.run(name, 4, method) == 4, "it was written after 4 steps"
    assert method.steps == 4 and loop.run(name, 5, method) == 5


@pytest.mark.parametrize("name", METHODS)
def test_a_state_is_a_copy_and_restores_all(name: str) -> None:
    model, optimizer, method = started(name)
    train(model, optimizer, 3)
    state, weights = method.state_dict(), {key: value.clone() for key, value in model.state_dict().items()}
    optimizer_state = {**optimizer.state_dict()}
    before = flat(state)
    train(model, optimizer, 3)
    assert flat(state) == before, "further steps changed a state that was returned before"
    assert flat(method.state_dict()) != before
    model.load_state_dict(weights)
    optimizer.load_state_dict(optimizer_state)
    method.load_state_dict(state)
    assert flat(method.state_dict()) == before
    train(model, optimizer, 1)
    assert flat(state) == before, "the method shares the tensors of the state that was loaded"


@pytest.mark.parametrize("name", METHODS)
def test_a_state_of_another_network_changes_nothing(name: str) -> None:
    model, optimizer, method = started(name)
    train(model, optimizer, 2)
    before, (*_, wider) = flat(method.state_dict()), started(name, 8)
    with pytest.raises(SurgeryError, match="state"):
        method.load_state_dict(wider.state_dict())
    assert flat(method.state_dict()) == before


@pytest.mark.parametrize("name", METHODS)
def test_an_optimizer_of_another_model_is_refused_and_gets_no_hooks(name: str) -> None:
    other = torch.optim.SGD(network().parameters(), 0.1)
    with pytest.raises(OptionError, match=r"make it from model\.parameters"):
        METHODS[name](network(), other)
    assert not other._optimizer_step_pre_hooks and not other._optimizer_step_post_hooks


class Counting(TrainingMethod):
    """Counts what is called, and halves weights."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        super().__init__(model, optimizer)
        self.gradients: list[float] = []
        self.attach()

    def before_step(self) -> None:
        (weight,) = self.model.parameters()
        gradient = self.finite_gradient("weight", weight)
        assert gradient is not None
        self.gradients.append(float(gradient))

    def after_step(self) -> None:
        assert not torch.is_grad_enabled()
        next(self.model.parameters()).div_(2)


def test_a_method_of_ones_own_sees_gradients_and_changes_weights_until_it_is_released() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    method = Counting(model, optimizer)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(1, 1)).sum().backward()
        optimizer.step()
    assert method.gradients == [1.0, 1.0] and method.steps == 2 and method.state_dict() == {"steps": 2}
    assert float(model.weight) == ((1 - 0.5) / 2 - 0.5) / 2
    method.release()
    optimizer.step()
    assert method.steps == 2 and len(method.gradients) == 2


def test_steps_that_a_scaler_skips_are_not_counted() -> None:
    model = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), 0.5, fused=True)
    method = Counting(model, optimizer)
    model(torch.ones(1, 1)).sum().backward()
    optimizer.found_inf = torch.tensor(1.0)  # type: ignore[attr-defined]  # as a gradient scaler sets it
    optimizer.step()
    assert method.steps == 0 and not method.gradients


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("state", "message"), [({}, "has no number of steps"), (None, "is no state of"), ({"steps": 3}, "has no entry '")]
)
def test_a_state_without_entries_is_refused(name: str, state: Any, message: str) -> None:
    _, _, method = started(name)
    with pytest.raises(SurgeryError, match=message):
        method.load_state_dict(state)
    assert method.steps == 0


class Weighted(TrainingMethod):
    """Does nothing to its weights."""

    def after_step(self) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    "weights", [list, tuple, lambda parameters: {"weight": 1.0}, lambda parameters: {1: parameters}]
)
def test_weights_that_are_no_mapping_of_names_to_parameters_are_refused(weights: Any) -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(OptionError, match="must map names to parameters; give a dict"):
        Weighted(model, optimizer, weights(model.parameters()))
