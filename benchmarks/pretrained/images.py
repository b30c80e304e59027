"""Photos that packages ship: half of those of foolbox to judge by, all others to prune with."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data as skimage_data
from torch import Tensor
from torch.nn import functional as F

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
PHOTOS = "astronaut cat chelsea coffee colorwheel hubble_deep_field immunohistochemistry retina rocket"
GREY = "camera coins moon page brick grass gravel text clock horse"
SIDE = 224


def inside(package: str, path: str) -> str:
    """The place of a file that a package ships; the package is not imported."""
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    return str(Path(next(iter(spec.submodule_search_locations))) / path)


@dataclass(frozen=True)
class Photos:
    """Normalised crops.

    Args:
        calibration: random crops of 29 photos, those of one photo side by side (images, 3, 224, 224).
        test: nine crops of each of ten others (photos, 9, 3, 224, 224).
        labels: the classes of those ten.
    """

    calibration: Tensor
    test: Tensor
    labels: Tensor


def photos(examples: int, mean: Tensor = MEAN, std: Tensor = STD) -> Photos:
    """Photos of foolbox and scikit-image."""
    draws = torch.Generator().manual_seed(0)
    paths = sorted(Path(inside("foolbox", "data")).glob("imagenet_*.jpg"))
    order = torch.randperm(len(paths), generator=draws).tolist()
    opened = [_pixels(np.asarray(Image.open(paths[at]).convert("RGB"))) for at in order]
    labels = torch.tensor([int(paths[at].stem.split("_")[2]) for at in order])
    half = len(opened) // 2
    sources = [*opened[half:], *(_pixels(image) for image in _skimage())]
    crops = [_random_crop(sources[at * len(sources) // examples], draws) for at in range(examples)]
    test = torch.stack([_nine(image) for image in opened[:half]])

    def normalised(images: Tensor) -> Tensor:
        return (images - mean[:, None, None]) / std[:, None, None]

    return Photos(normalised(torch.stack(crops)), normalised(test), labels[:half])


def _skimage() -> list[np.ndarray]:
    found = []
    for name in f"{PHOTOS} {GREY}".split():
        try:
            found.append(np.asarray(getattr(skimage_data, name)()))
        except Exception as missing:  # noqa: BLE001 (a photo that is not inside the package would be fetched)
            print(f"without {name}: {type(missing).__name__}")
    return found


def _pixels(image: np.ndarray) -> Tensor:
    """An image as (3, height, width) from 0 to 1, the shorter side 256."""
    image = np.repeat(image[..., None], 3, 2) if image.ndim == 2 else image[..., :3]
    pixels = torch.tensor(image.astype(np.float32) / (1 if image.dtype == bool else 255)).permute(2, 0, 1)[None]
    scale = 256 / min(pixels.shape[2:])
    return F.interpolate(pixels, scale_factor=scale, mode="bilinear", antialias=True)[0]


def _nine(image: Tensor) -> Tensor:
    height, width = image.shape[1:]
    return torch.stack(
        [
            image[:, top : top + SIDE, left : left + SIDE]
            for top in (0, (height - SIDE) // 2, height - SIDE)
            for left in (0, (width - SIDE) // 2, width - SIDE)
        ]
    )


def _random_crop(image: Tensor, draws: torch.Generator) -> Tensor:
    """A square of half to all of the shorter side, mirrored half the time, its colours a little shifted."""

    def below(limit: int) -> int:
        return int(torch.randint(0, max(limit, 1), (1,), generator=draws))

    height, width = image.shape[1:]
    side = 128 + below(min(height, width) - 127)
    top, left = below(height - side + 1), below(width - side + 1)
    crop = image[None, :, top : top + side, left : left + side]
    crop = F.interpolate(crop, size=SIDE, mode="bilinear", antialias=True)[0]
    crop = crop.flip(2) if below(2) else crop
    return crop * (0.8 + 0.4 * torch.rand(3, 1, 1, generator=draws))
