"""What methods that train by themselves work with: a dense network, examples, and how to train."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.data.batch import Batch, on_device
from secateur.data.conversion import example_batches
from secateur.data.model_inputs import device_of, floating_type
from secateur.errors import DataError
from secateur.importance.data_checks import checked_data, taken_examples
from secateur.training.loop import Loop, Settings


@dataclass(frozen=True, eq=False)
class TrainingSession:
    """A dense network, examples, and how to train.

    Args:
        dense: the network as it was.
        batches: the examples to train on.
        tests: the examples to measure on; None for those of the training.
        settings: how to train.
    """

    dense: nn.Module
    batches: Sequence[Batch]
    tests: Sequence[Batch] | None
    settings: Settings

    @property
    def example(self) -> Batch:
        """A batch to trace and to time with."""
        return on_device(self.batches[0], device_of(self.dense))

    @property
    def measured(self) -> list[Batch]:
        """The examples to measure on, where the network is."""
        return [on_device(batch, device_of(self.dense)) for batch in self.tests or self.batches]

    def loop(self, model: nn.Module) -> Loop:
        """A loop that trains a copy of the dense network, by Adam."""
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(trained, self.settings.learning_rate)
        return Loop(model, self.dense, self.batches, optimizer, self.settings)

    def training_by_round(self, steps: int) -> Callable[[nn.Module], object]:
        """A training of so many steps for each call, whose stages are numbered."""
        numbers = itertools.count(1)

        def fit(model: nn.Module) -> None:
            self.loop(model).run(f"round {next(numbers)}", steps)

        return fit


def training_session(
    model: nn.Module,
    data: Any,
    test: Any,
    learning_rate: float,
    batch_size: int,
    seed: int,
    checkpoint: str | Path | None,
    progress: bool,
    options: Sequence[Any],
    trains: bool = True,
) -> TrainingSession:
    """A session on data that is checked first.

    Args:
        model: the dense network.
        data, test: examples, as `prune` takes them.
        learning_rate: of Adam.
        batch_size: examples drawn for each step.
        seed: of all that is drawn.
        checkpoint: a folder to write states to now and then, and to go on from.
        progress: whether to show a progress bar.
        options: whatever else the weights depend on.
        trains: whether examples are needed to train on; if not, inputs as `trace` takes them do as well.

    Raises:
        DataError: the examples can't be used.
        TraceError: the model holds NaN, or can't be cut for what it is.
    """
    batches, tests = _examples(model, data, test, trains)
    folder = None if checkpoint is None else Path(checkpoint)
    settings = Settings(learning_rate, batch_size, seed, folder, repr(tuple(options)), progress=progress)
    return TrainingSession(model, batches, None if test is None else tests, settings)


def _examples(model: nn.Module, data: Any, test: Any, trains: bool) -> tuple[list[Batch], list[Batch]]:
    """The examples to work with and those to measure on, checked against the model."""
    try:
        return checked_data(model, data, test, None, [])
    except DataError:
        if trains or test is not None:
            raise
    batches = taken_examples(model, example_batches(data, device_of(model), floating_type(model)))
    return batches, batches
