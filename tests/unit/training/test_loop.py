"""The loop for those who have none: stopped at any step, it goes on to the same bits."""

import copy
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from secateur.data.conversion import as_batches
from secateur.errors import DataError, StorageError
from secateur.sparsity.pivoting.pivot import pivot
from secateur.sparsity.spp.spp import SPP
from secateur.sparsity.unification.unification import Unification
from secateur.training.loop import TrainingLoop, TrainingSettings

State = dict[str, Tensor]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU(), nn.Dropout(0.3)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 3)).eval()


def examples() -> list[tuple[Tensor, Tensor]]:
    draws = torch.Generator().manual_seed(1)
    return [(torch.randn(8, 2, 8, 8, generator=draws), torch.arange(8) % 3) for _ in range(3)]


class Stopped(Exception):  # noqa: N818
    pass


def loop_on(model: nn.Module, folder: Path | None, stop: int | None = None, rate: float = 1e-3) -> TrainingLoop:
    """A loop that writes after every step, and is killed in the middle of one."""
    optimizer = torch.optim.Adam(model.parameters(), rate)
    settings = TrainingSettings(rate, 8, 0, folder, seconds=0.0)
    loop = TrainingLoop(model, network(), as_batches(examples()), optimizer, settings)
    steps = itertools.count(1)

    def killed(*_: object) -> None:
        if next(steps) == stop:
            raise Stopped

    optimizer.register_step_pre_hook(killed)
    return loop


def by_spp(folder: Path | None, stop: int | None) -> State:
    model = network()
    loop = loop_on(model, folder, stop)
    method = SPP(model, examples()[0][0], loop.optimizer, {"columns": 0.5}, every=1, skip=[])
    loop.until("chances", lambda: method.is_finished, method)
    loop.run("fixed masks", 3, method)
    return method.finish().model.state_dict()


def by_unification(folder: Path | None, stop: int | None) -> State:
    model = network()
    loop = loop_on(model, folder, stop)
    method = Unification(model, loop.optimizer, shape=(1, 4), every=2)
    loop.run("towards blocks", 6, method)
    method.harden()
    loop.run("blocks", 4, method)
    return model.state_dict()


def by_pivoting(folder: Path | None, stop: int | None) -> State:
    numbers, taken = itertools.count(1), itertools.count(0)

    def fit(model: nn.Module) -> None:
        number = next(numbers)
        loop_on(model, folder, None if stop is None else stop - 5 * next(taken)).run(f"round {number}", 5)

    return pivot(network(), examples()[0][0], 0.25, shape=(2, 2), rounds=2, fit=fit).model.state_dict()


@pytest.mark.parametrize("method", [by_spp, by_unification, by_pivoting])
@pytest.mark.parametrize("stop", [1, 4, 8])
def test_a_killed_training_goes_on_to_the_same_bits(
    method: Callable[[Path | None, int | None], State], stop: int, tmp_path: Path
) -> None:
    straight = method(None, None)
    state = torch.random.get_rng_state()
    with pytest.raises(Stopped):
        method(tmp_path, stop)
    torch.manual_seed(9)  # nothing depends on it
    resumed = method(tmp_path, None)
    assert list(resumed) == list(straight)
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)
    again = method(tmp_path, None)  # nothing is left to do
    assert all(torch.equal(again[name], straight[name]) for name in straight)
    torch.random.set_rng_state(state)


def test_training_comes_nearer_to_the_labels_and_leaves_modes_and_random_numbers_as_they_were() -> None:
    model = network()
    loop = loop_on(model, None, rate=1e-2)
    model[5].training = True
    state = torch.random.get_rng_state()
    before = nn.functional.cross_entropy(copy.deepcopy(model).eval()(examples()[0][0]), examples()[0][1])
    assert loop.run("steps", 60) == 60
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [module.training for module in model] == [number == 5 for number in range(len(model))]
    assert nn.functional.cross_entropy(model.eval()(examples()[0][0]), examples()[0][1]) < before
    assert loop.optimizer.param_groups[0]["lr"] < 1e-5  # half a cosine to its end


def test_states_of_other_trainings_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    loop_on(network(), tmp_path).run("steps", 2)
    with pytest.raises(StorageError, match="of another training"):
        loop_on(network(), tmp_path, rate=1e-2).run("steps", 2)
    file = tmp_path / "steps.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(StorageError, match="can't be read"):
        loop_on(network(), tmp_path).run("steps", 2)
    save_file({"some": torch.zeros(1)}, file)
    with pytest.raises(StorageError, match="secateur training"):
        loop_on(network(), tmp_path).run("steps", 2)
    file.rename(tmp_path / "steps.pt")
    with pytest.raises(StorageError, match=r"version 0\.7"):
        loop_on(network(), tmp_path).run("steps", 2)


def test_a_loss_that_is_nan_stops_with_stage_and_step() -> None:
    model = network()
    loop = loop_on(model, None)
    with torch.no_grad():
        model[9].bias.fill_(float("nan"))
    with pytest.raises(DataError, match="steps: the loss is nan at step 1"):
        loop.run("steps", 2)
    assert not any(module.training for module in model)
