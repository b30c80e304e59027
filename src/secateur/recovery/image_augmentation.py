"""Flips and shifts of images for a training, where the dense network itself answers them as it answers the images.

A network that was trained with flipped and shifted images gives the same outputs for them. That can be measured without
labels, and it shows that such images are like those that the network is used for. A training towards the dense
network's outputs then has as many inputs as it has steps, from a few hundred images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from secateur.data.batch import Batch, concat_batches
from secateur.evaluation.divergence import divergence
from secateur.evaluation.holdout import spread_microbatches
from secateur.graph.contexts import isolated_evaluation, run_seeded

SHIFT = 8  # images are shifted by at most an eighth of their height and width
INVARIANT = 0.1  # of the divergence between the outputs for different images
EXAMPLES = 64
FEWEST = 8  # examples to compare
SMALLEST = 16  # pixels of the shorter side


@dataclass(frozen=True)
class ImageAugmentation:
    """Random changes of images.

    Args:
        flips: whether images are flipped from left to right, each with probability one half.
        shifts: whether images are shifted, by up to an eighth of their sides; what comes in is the image's reflection.
    """

    flips: bool
    shifts: bool

    @staticmethod
    def named(name: str) -> "ImageAugmentation":
        """Return the changes that have this name.

        Examples:
            >>> ImageAugmentation.named("flips and shifts")
            ImageAugmentation(flips=True, shifts=True)
        """
        return ImageAugmentation("flips" in name, "shifts" in name)

    def __bool__(self) -> bool:
        """Return whether anything is changed."""
        return self.flips or self.shifts

    def __str__(self) -> str:
        return (
            " and ".join(name for name, is_used in (("flips", self.flips), ("shifts", self.shifts)) if is_used)
            or "none"
        )

    def change_images(self, batch: Batch, draws: torch.Generator) -> Batch:
        """Change the images of a batch.

        Args:
            batch: a batch whose only tensor is one of images.
            draws: the random generator.
        """
        if not self:
            return batch
        inputs = batch.without_target().map(lambda tensor: self.of(tensor, draws))
        return replace(inputs, target=batch.target)

    def of(self, images: Tensor, draws: torch.Generator) -> Tensor:
        """Return changed images of the same shape, (images, channels, height, width).

        Examples:
            >>> images = torch.arange(16.0).view(1, 1, 1, 16)
            >>> flipped = ImageAugmentation(flips=True, shifts=False).of(images, torch.Generator().manual_seed(0))
            >>> flipped.equal(images) or flipped.equal(images.flip(3))
            True
        """
        count, channels, height, width = images.shape
        rows, columns = (self._positions(count, length, draws) for length in (height, width))  # (images, length) each
        if self.flips:
            is_flipped = torch.rand(count, generator=draws) < 0.5
            columns = torch.where(is_flipped[:, None], columns.flip(1), columns)
        image, channel = torch.arange(count), torch.arange(channels)
        index = image[:, None, None, None], channel[None, :, None, None], rows[:, None, :, None], columns[:, None, None]
        return images[tuple(positions.to(images.device) for positions in index)]

    def _positions(self, count: int, length: int, draws: torch.Generator) -> Tensor:
        """Return for each image and place along one axis the position that is read there, (images, length)."""
        longest_shift = length // SHIFT if self.shifts else 0
        shifts = torch.randint(-longest_shift, longest_shift + 1, (count, 1), generator=draws)
        positions = (torch.arange(length) + shifts).abs()
        return length - 1 - (length - 1 - positions).abs()


def is_image(tensor: Tensor) -> bool:
    """Return True for floating tensors (images, channels, height, width) of 1 to 4 channels and at least 16 pixels."""
    has_form = tensor.dim() == 4 and tensor.is_floating_point() and 1 <= tensor.shape[1] <= 4
    return has_form and min(tensor.shape[2:]) >= SMALLEST


def augmentation_for(
    dense: nn.Module, microbatches: Sequence[Batch], temperature: float, seed: int = 0, writes: bool = True
) -> ImageAugmentation:
    """Return the changes of images that the dense network's outputs do not depend on.

    Flips and shifts are tried separately. Each is used if the outputs for changed images differ from those for the
    images by less than a tenth of the difference between the outputs for different images.

    Args:
        dense: the dense network.
        microbatches: the examples; where these are no images, nothing is changed.
        temperature: at which class scores are compared.
        seed: for the images that are compared, and for the shifts.
        writes: whether the network's code may write to its parameters.
    """
    images = _sampled_images(microbatches, seed)
    if images is None:
        return ImageAugmentation(False, False)
    flipped_images = images.map(lambda tensor: tensor.flip(3))
    draws = torch.Generator().manual_seed(seed)
    shifted_images = ImageAugmentation(flips=False, shifts=True).change_images(images, draws)
    with isolated_evaluation(dense, writes):
        output = run_seeded(dense, images)
        other_outputs = run_seeded(dense, images.take(torch.arange(images.size or 1).roll(1)))
        between = _output_distance(other_outputs, output, temperature)
        flips, shifts = (
            _output_distance(run_seeded(dense, changed_images), output, temperature) < INVARIANT * between
            for changed_images in (flipped_images, shifted_images)
        )
    return ImageAugmentation(flips, shifts)


def _output_distance(output: object, other: object, temperature: float) -> float:
    return float(divergence(output, other, temperature=temperature).mean())


def _sampled_images(microbatches: Sequence[Batch], seed: int) -> Batch | None:
    """Return images from all over the examples in random order, None if these are anything else or too few."""
    if not are_images(microbatches) or not all(microbatch.is_divisible for microbatch in microbatches):
        return None
    images = spread_microbatches(microbatches, EXAMPLES)
    total = sum(microbatch.size or 1 for microbatch in images)
    if total < FEWEST:
        return None
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    return concat_batches([microbatch.without_target() for microbatch in images]).take(order[:EXAMPLES])


def are_images(microbatches: Sequence[Batch]) -> bool:
    """Return whether each microbatch is one tensor of images, all of one size and type."""
    inputs = [microbatch.tensors for microbatch in microbatches]
    forms = {(tensors[0].shape[1:], tensors[0].dtype) for tensors in inputs if tensors}
    return len(forms) == 1 and all(len(tensors) == 1 and is_image(tensors[0]) for tensors in inputs)
