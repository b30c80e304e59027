"""Sessions of methods with a built-in training loop: a dense network, examples, and the settings of training."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.coupling.network import Network
from secateur.data.batch import Batch, on_device
from secateur.data.conversion import example_batches
from secateur.data.model_inputs import device_of, floating_type
from secateur.data.user_examples import UserExamples
from secateur.errors import DataError, OptionError
from secateur.evaluation.report_split import ReportExamples, split_examples
from secateur.importance.context import as_examples
from secateur.importance.data_checks import checked_data, usable_examples
from secateur.training.loop import TrainingLoop, TrainingSettings


@dataclass(frozen=True, eq=False)
class TrainingSession:
    """A dense network, examples, and the settings of training.

    Args:
        dense: the dense network.
        batches: the examples to train on.
        examples: the same, beside the examples to measure on.
        settings: the settings of training.
    """

    dense: nn.Module
    batches: Sequence[Batch]
    examples: ReportExamples
    settings: TrainingSettings

    @property
    def example(self) -> Batch:
        """A batch for tracing and timing, on the network's device."""
        return on_device(self.batches[0], device_of(self.dense))

    @property
    def measured(self) -> ReportExamples:
        """The examples to measure on, on the network's device."""
        return self.examples.on(device_of(self.dense))

    def marked_by(self, network: Network) -> "TrainingSession":
        """Return the session with examples that are marked by the network, as `as_examples` does."""
        fitted_batches, measured_batches = (
            as_examples(network, batches) for batches in (self.batches, self.examples.measured)
        )
        (timed_batch,) = as_examples(network, [self.examples.timed])
        return replace(
            self,
            batches=fitted_batches,
            examples=replace(self.examples, fitted=fitted_batches, measured=measured_batches, timed=timed_batch),
        )

    def loop(self, model: nn.Module) -> TrainingLoop:
        """Return a loop that trains a copy of the dense network by Adam.

        Raises:
            OptionError: all parameters are frozen.
        """
        trained_parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not trained_parameters:
            raise OptionError(
                f"no parameter of this {type(model).__name__} requires gradients, so nothing can be trained; call "
                "model.requires_grad_(True) first"
            )
        optimizer = torch.optim.Adam(trained_parameters, self.settings.learning_rate)
        return TrainingLoop(model, self.dense, self.batches, optimizer, self.settings)

    def training_by_round(self, steps: int) -> Callable[[nn.Module], object]:
        """Return a function that trains a model for so many steps, each call as a stage of its own."""
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
    options: Sequence[Any],
    trains: bool = True,
) -> TrainingSession:
    """Return a session on data that is checked first.

    Args:
        model: the dense network.
        data: examples, as `prune` takes them.
        test: other examples to measure on, as `prune` takes them; by default a part of the data is kept away.
        learning_rate: the learning rate of Adam.
        batch_size: the number of examples in each step.
        seed: the seed of all random numbers.
        checkpoint: a folder to write states to at intervals, and to resume from.
        options: all else that the weights depend on.
        trains: whether the examples are trained on; if not, inputs as `trace` takes them are enough.

    Raises:
        DataError: The examples cannot be used.
        TraceError: The model holds NaN, or is of a kind that cannot be pruned.
    """
    checked_examples = _checked_examples(model, data, test, trains)
    folder = None if checkpoint is None else Path(checkpoint)
    settings = TrainingSettings(learning_rate, batch_size, seed, folder, repr(tuple(options)))
    if test is None and not trains:  # nothing is fitted to the examples
        examples = ReportExamples(checked_examples.data, checked_examples.data, checked_examples.data[0], True)
    else:
        examples = split_examples(checked_examples.data, checked_examples.test, None)
    return TrainingSession(model, examples.fitted, examples, settings)


def _checked_examples(model: nn.Module, data: Any, test: Any, trains: bool) -> UserExamples:
    """Return the examples as batches, checked against the model."""
    try:
        return checked_data(model, data, test, None, [])
    except DataError:
        if trains or test is not None:
            raise
    return UserExamples(usable_examples(model, example_batches(data, device_of(model), floating_type(model), model)))
