"""Changes of the inputs of a training: by the user's function, or those that the dense network is invariant to."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from secateur.data.batch import Batch
from secateur.recovery.image_augmentation import ImageAugmentation, augmentation_for
from secateur.recovery.training_task import TrainingSchedule, TrainingTask

Augment = Callable[[Any], Any]


@dataclass(frozen=True)
class InputAugmentation:
    """Changes of inputs.

    Args:
        function: the user's, None for none.
        images: random changes of images, where there is no such function.
    """

    function: Augment | None
    images: ImageAugmentation

    def __call__(self, batch: Batch, draws: torch.Generator) -> Batch:
        """Return a batch with changed inputs."""
        if self.function is None:
            return self.images.change_images(batch, draws)
        if batch.kwargs:
            return replace(batch, kwargs=self.function(dict(batch.kwargs)))
        new_inputs = self.function(batch.args[0] if len(batch.args) == 1 else batch.args)
        return replace(batch, args=new_inputs if isinstance(new_inputs, tuple) else (new_inputs,))

    def __str__(self) -> str:
        return str(self.images) if self.function is None else getattr(self.function, "__name__", "yours")


def augmentations_of(task: TrainingTask) -> list[InputAugmentation]:
    """Return the changes of inputs to try: the option `augment`, or those that the dense network allows, and none."""
    identity = ImageAugmentation(flips=False, shifts=False)
    if "augment" in task.options:
        return [InputAugmentation(task.options["augment"], identity)]
    images = augmentation_for(task.dense, task.microbatches, task.temperature, task.seed, task.writes)
    return [InputAugmentation(None, change) for change in ([images, identity] if images else [identity])]


def augmentation_of(task: TrainingTask, schedule: TrainingSchedule) -> InputAugmentation:
    """Return the changes of inputs of a schedule that was found on trial, whatever other examples allow."""
    if "augment" in task.options:
        return InputAugmentation(task.options["augment"], ImageAugmentation(flips=False, shifts=False))
    return InputAugmentation(None, ImageAugmentation.named(schedule.augmentation))
