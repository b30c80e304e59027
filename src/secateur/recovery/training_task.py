"""The task of a repair that trains, and the schedule that it followed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from secateur.data.batch import Batch
from secateur.errors import TargetError
from secateur.evaluation.targets import check_target
from secateur.graph.contexts import isolated_evaluation, run_module
from secateur.recovery.head_features import HeadPaths
from secateur.utils.collected_warnings import warn

SLOWER = 4.0  # the factor between a learning rate and the next


@dataclass(frozen=True)
class TrainingSchedule:
    """The schedule that a training followed.

    Args:
        learning_rate: the first learning rate.
        steps: the numbers of steps at this rate and at each slower one that led to the weights that were kept.
        augmentation: how inputs were changed.
        targets: what of the dense network was compared.
    """

    learning_rate: float
    steps: tuple[int, ...]
    augmentation: str
    targets: str

    @property
    def rates(self) -> tuple[float, ...]:
        """The learning rate of each number of steps."""
        return tuple(self.learning_rate / SLOWER**number for number in range(len(self.steps)))

    def __str__(self) -> str:
        runs = [f"{steps} at {rate:.2g}" for steps, rate in zip(self.steps, self.rates, strict=True) if steps]
        return (
            f"steps towards the dense network's {self.targets} and their learning rates: {', '.join(runs) or 'none'}; "
            f"changes of images: {self.augmentation}"
        )


@dataclass(frozen=True, eq=False)
class TrainingTask:
    """The networks, examples and options of a training.

    Args:
        small: the cut network, which is changed in place.
        dense: the dense network, whose features or outputs are the targets.
        microbatches: the examples.
        held_out: others, to stop by.
        options: steps, learning_rate, batch_size, temperature, augment.
        seed: for whatever is drawn.
        writes: whether the networks' code may write to their parameters.
        temperature: at which class scores are compared.
        head: the paths of the last layer, None where its inputs cannot be compared.
        schedule: how it ran on trial, for the training with all examples that repeats it; None on trial.
        is_time_up: whether the training has to end.
    """

    small: nn.Module
    dense: nn.Module
    microbatches: Sequence[Batch]
    held_out: Sequence[Batch]
    options: Mapping[str, Any]
    seed: int = 0
    writes: bool = True
    temperature: float = 1.0
    head: HeadPaths | None = None
    schedule: TrainingSchedule | None = None
    is_time_up: Callable[[], bool] = lambda: False


TrainingFunction = Callable[[TrainingTask], TrainingSchedule | None]


def with_usable_targets(task: TrainingTask) -> TrainingTask:
    """Drop the targets if the default loss does not accept them."""
    with isolated_evaluation(task.dense, task.writes):
        outputs = [(microbatch, run_module(task.dense, microbatch)) for microbatch in task.microbatches[:1]]
    try:
        for microbatch, output in outputs:
            if microbatch.target is not None:
                check_target(output, microbatch.target)
    except TargetError as failure:
        warn(f"tune trains without targets: {failure}")
        return replace(task, microbatches=[microbatch.without_target() for microbatch in task.microbatches])
    return task
