"""The task of a repair that trains, and the schedule that it followed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from secateur.data.batch import Batch
from secateur.recovery.head_features import HeadPaths


@dataclass(frozen=True)
class TrainingSchedule:
    """The schedule that a training followed.

    Args:
        steps: the number of steps up to the weights that were kept.
        learning_rate: the rate at which these were found.
        augmentation: how inputs were changed.
        targets: what of the dense network was compared.
    """

    steps: int
    learning_rate: float
    augmentation: str
    targets: str

    def __str__(self) -> str:
        return (
            f"{self.steps} steps towards the dense network's {self.targets}, to a learning rate of "
            f"{self.learning_rate:.2g}, augmentation: {self.augmentation}"
        )


@dataclass(frozen=True, eq=False)
class TrainingTask:
    """The networks, examples and options of a training.

    Args:
        small: the cut network, which is changed in place.
        dense: the network that it should be like.
        cells: the examples.
        held_out: others, to stop by.
        options: steps, learning_rate, batch_size, temperature, augment.
        seed: for whatever is drawn.
        writes: whether the networks' code may write to their parameters.
        temperature: at which class scores are compared.
        head: the paths of the last layer, None where its inputs cannot be compared.
        schedule: how it ran on a part of the examples, from whose weights it goes on with all of them; None on trial.
        is_time_up: whether the training has to end.
    """

    small: nn.Module
    dense: nn.Module
    cells: Sequence[Batch]
    held_out: Sequence[Batch]
    options: Mapping[str, Any]
    seed: int = 0
    writes: bool = True
    temperature: float = 1.0
    head: HeadPaths | None = None
    schedule: TrainingSchedule | None = None
    is_time_up: Callable[[], bool] = lambda: False


Trained = Callable[[TrainingTask], TrainingSchedule | None]
