"""A trained network with examples to prune it with and others to test it on."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class PublishedSubject:
    """A trained network, images to prune it with, and others to test it on.

    Args:
        network: the name of the network.
        images: images of the training set, (images, ...).
        test_images: images of the test set, (images, ...).
        test_labels: their class numbers, (images,) or (images, height, width).
        dense: a new instance of the network, in evaluation mode.
        labels: the class numbers of `images`, for bounds that a user checks by labels; None where there are none.
        batch: the number of images in a batch.
    """

    network: str
    images: Tensor
    test_images: Tensor
    test_labels: Tensor
    dense: nn.Module
    labels: Tensor | None = None
    batch: int = 32

    def draw(self, count: int, seed: int) -> list[Tensor]:
        """Return random images in batches, others for each seed."""
        return list(self.images[self.order(seed)[:count]].split(self.batch))

    def draw_labels(self, count: int, seed: int) -> list[Tensor] | None:
        """Return the labels of the images that `draw` returns, in the same batches; None where there are none."""
        return None if self.labels is None else list(self.labels[self.order(seed)[:count]].split(self.batch))

    def order(self, seed: int) -> Tensor:
        """Return the numbers of the images in the random order in which they are drawn, (images,)."""
        return torch.randperm(len(self.images), generator=torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def outputs(self, model: nn.Module) -> Tensor:
        """Return the outputs of a network on the test images, (images, classes)."""
        model.eval()
        return torch.cat([model(images) for images in self.test_images.split(self.batch)])

    def measures(self, model: nn.Module) -> dict[str, float]:
        """Return the measures of a network on the test images by their names."""
        return {"accuracy": float((self.outputs(model).argmax(1) == self.test_labels).double().mean())}

    def measures_on_others(self, model: nn.Module, count: int, seed: int) -> dict[str, float]:
        """Return the measures on images that `draw(count, seed)` does not return; none by default."""
        return {}


@torch.no_grad()
def outputs_in_batches(model: nn.Module, examples: Tensor) -> Tensor:
    """Return the outputs of a network, which is set to evaluation mode, (examples, classes)."""
    return torch.cat([model.eval()(batch) for batch in examples.split(250)])
