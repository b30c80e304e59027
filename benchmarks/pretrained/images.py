"""Photos of a folder, one file for each class of ImageNet: some to prune with, others to test on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
CLASSES, TEST = 1000, 400
SHORT, SIDE = 256, 224


@dataclass(frozen=True)
class Photos:
    """Normalised centre crops.

    Args:
        calibration: photos to prune with, (images, 3, 224, 224).
        test: photos of 400 other classes.
        labels: the classes of the test photos.
    """

    calibration: Tensor
    test: Tensor
    labels: Tensor


def load_photos(folder: Path, examples: int, mean: Tensor = MEAN, std: Tensor = STD) -> Photos:
    """Return photos in a random order that is always the same.

    Args:
        folder: their files; sorted by name, they are in the order of ImageNet's classes.
        examples: the number of photos to prune with.
        mean: the mean of each channel.
        std: the standard deviation of each channel.
    """
    paths = sorted(folder.glob("n*.JPEG"))
    if len(paths) != CLASSES or examples > CLASSES - TEST:
        raise SystemExit(
            f"{folder} has {len(paths)} photos, not one for each of {CLASSES} classes, or too many are asked for"
        )
    order = torch.randperm(CLASSES, generator=torch.Generator().manual_seed(0)).tolist()
    pixels = torch.stack([centre_crop(paths[at]) for at in order[: TEST + examples]])
    normalised = (pixels - mean[:, None, None]) / std[:, None, None]
    return Photos(normalised[TEST:], normalised[:TEST], torch.tensor(order[:TEST]))


def centre_crop(path: Path) -> Tensor:
    """Return the middle of a photo whose shorter side is made 256 long, (3, 224, 224) from 0 to 1."""
    pixels = torch.tensor(np.asarray(Image.open(path).convert("RGB"), np.float32) / 255).permute(2, 0, 1)[None]
    scale = SHORT / min(pixels.shape[2:])
    image = F.interpolate(pixels, scale_factor=scale, mode="bilinear", antialias=True)[0]
    row, column = ((length - SIDE) // 2 for length in image.shape[1:])
    return image[:, row : row + SIDE, column : column + SIDE]


class FlipAndShift:
    """Mirror half of the batches of images, and shift all by up to a twelfth of their side."""

    def __init__(self) -> None:
        self.draws = torch.Generator().manual_seed(0)

    def __call__(self, images: Tensor) -> Tensor:
        """Return a changed batch."""

        def below(limit: int) -> int:
            return int(torch.randint(limit, (1,), generator=self.draws))

        most = SIDE // 12
        padded = F.pad(images.flip(3) if below(2) else images, (most,) * 4, mode="reflect")
        row, column = below(2 * most + 1), below(2 * most + 1)
        return padded[:, :, row : row + SIDE, column : column + SIDE]
