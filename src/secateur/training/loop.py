"""A training loop for those who have none of their own: killed at any step, it goes on to the same weights."""

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from tqdm import tqdm

from secateur.data import Batch, device_of, on_device
from secateur.errors import DataError, StorageError
from secateur.files import write_whole
from secateur.importance.continuing import mark_of_tensors
from secateur.importance.seeds import generator_for
from secateur.network.calls import call_model
from secateur.network.program import preserved
from secateur.recovery.tune import drawn, towards

FORMAT = "secateur training 1"


class Method(Protocol):
    """What changes weights while they are trained, and can be gone on with."""

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from it."""


@dataclass(frozen=True, eq=False)
class Settings:
    """How to train.

    Args:
        learning_rate: of Adam.
        batch_size: examples drawn for each step.
        seed: of all that is drawn.
        folder: where each stage writes its state now and then, and goes on from; None for nowhere.
        about: whatever else the weights depend on, so that no run goes on from a state of other options.
        seconds: from writing to writing.
        progress: whether to show a progress bar.
    """

    learning_rate: float = 1e-3
    batch_size: int = 64
    seed: int = 0
    folder: Path | None = None
    about: str = ""
    seconds: float = 10.0
    progress: bool = False


class Loop:
    """Trains a model in place towards what it gave at first, and towards labels where there are any.

    Args:
        model: the model that is trained.
        dense: what it should be like: the network as it was.
        cells: the examples.
        optimizer: that moves the model.
        settings: how.

    Example:
        >>> import copy, torch
        >>> from secateur.data import as_batches
        >>> model = torch.nn.Linear(4, 2)
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> loop = Loop(model, copy.deepcopy(model), as_batches(torch.randn(8, 4)), optimizer, Settings())
        >>> loop.run("fixed masks", 3)
        3
    """

    def __init__(
        self,
        model: nn.Module,
        dense: nn.Module,
        cells: Sequence[Batch],
        optimizer: torch.optim.Optimizer,
        settings: Settings,
    ) -> None:
        device = device_of(model)
        self.model, self.dense, self.optimizer, self.settings = model, dense, optimizer, settings
        self.cells = [on_device(cell, device) for cell in cells]
        self._mark = self._made_of() if settings.folder is not None else ""

    def run(self, stage: str, steps: int, method: Method | None = None) -> int:
        """So many steps, the learning rate falling to nothing along half a cosine.

        Args:
            stage: a name of its own for each run of a training; its file is called so.
            steps: how many.
            method: what changes the weights meanwhile.

        Returns:
            The steps that the stage has taken, those of earlier runs among them.

        Raises:
            DataError: the loss is NaN or infinite.
            StorageError: the state that an earlier run wrote is damaged, or of another training.
        """
        rate = self.settings.learning_rate
        return self._train(
            stage, method, lambda step: step >= steps, lambda step: rate * (1 + math.cos(math.pi * step / steps)) / 2
        )

    def until(self, stage: str, done: Callable[[], bool], method: Method) -> int:
        """Steps at the full learning rate until something is reached; otherwise as `run`."""
        return self._train(stage, method, lambda _: done(), lambda _: self.settings.learning_rate)

    def _train(
        self, stage: str, method: Method | None, ends: Callable[[int], bool], rate: Callable[[int], float]
    ) -> int:
        flags = {module: module.training for module in self.model.modules()}
        begun = step = self._resumed(stage, method)
        written = time.monotonic()
        try:
            self.model.train()
            with tqdm(desc=stage, initial=begun, leave=False, disable=None if self.settings.progress else True) as bar:
                for step in itertools.count(begun):
                    if ends(step):
                        break
                    for group in self.optimizer.param_groups:
                        group["lr"] = rate(step)
                    self._step(stage, step + 1)
                    bar.update()
                    if time.monotonic() - written >= self.settings.seconds:
                        self._write(stage, step + 1, method)
                        written = time.monotonic()
        finally:
            for module, flag in flags.items():
                module.training = flag
        self._write(stage, step, method)
        return step

    def _step(self, stage: str, number: int) -> None:
        """One batch; what is drawn depends on the stage and the number alone."""
        draws = generator_for(self.settings.seed, stage, number)
        batch = drawn(self.cells, self.settings.batch_size, draws)
        with preserved(self.dense):
            wanted = call_model(self.dense, batch)
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(int(torch.randint(2**62, (), generator=draws)))  # dropout draws from the global one
            loss = towards(call_model(self.model, batch), wanted, batch.target)
            if not bool(torch.isfinite(loss)):
                raise DataError(f"{stage}: the loss is {float(loss)} at step {number}; lower the learning rate")
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

    def _made_of(self) -> str:
        """A mark of what a training depends on."""
        settings = self.settings
        return mark_of_tensors(
            list(self.dense.state_dict().values()), self.cells, settings.learning_rate, settings.batch_size,
            settings.seed, settings.about,
        )  # fmt: skip

    def _file(self, stage: str) -> Path | None:
        return None if self.settings.folder is None else self.settings.folder / f"{stage}.pt"

    def _write(self, stage: str, step: int, method: Method | None) -> None:
        path = self._file(stage)
        if path is None:
            return
        state = {
            "format": FORMAT, "of": self._mark, "step": step, "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(), "method": None if method is None else method.state_dict(),
        }  # fmt: skip
        write_whole({path: lambda place: torch.save(state, place)})

    def _resumed(self, stage: str, method: Method | None) -> int:
        """The steps that an earlier run has taken, its state taken over."""
        path = self._file(stage)
        if path is None or not path.exists():
            return 0
        state = _read(path)
        if state["of"] != self._mark:
            raise StorageError(
                f"{path} is of another training (another model, other examples or options); give another folder, or "
                "what it was begun with"
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if method is not None:
            method.load_state_dict(state["method"])
        return int(state["step"])


def _read(path: Path) -> dict[str, Any]:
    """
    Raises:
        StorageError: the file is damaged, or another.
    """
    try:
        state = torch.load(path, "cpu", weights_only=True)
    except Exception as failure:  # torch raises many types on a damaged archive
        raise StorageError(f"{path} can't be read: {type(failure).__name__}: {failure}; remove it") from failure
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise StorageError(f"{path} is no state of a training by this version; remove it")
    return state
