"""ImageNet networks, judged by validation photos of ten classes, and calibrated on photos of these or of all others."""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pretrained.images import CLASSES, MEAN, STD, centre_crop
from torch import Tensor, nn

from published.subject import PublishedSubject, outputs_in_batches

TEN: Mapping[str, int] = {
    "n01440764": 0,
    "n02102040": 217,
    "n02979186": 482,
    "n03000684": 491,
    "n03028079": 497,
    "n03394916": 566,
    "n03417042": 569,
    "n03425413": 571,
    "n03445777": 574,
    "n03888257": 701,
}
"""The classes of Imagenette among the 1,000, by their folders."""
BATCH, OTHERS = 16, 400
ONE_EACH, OF_TEN = "one photo a class", "photos of the ten classes"


@dataclass(frozen=True)
class PhotoClassifier(PublishedSubject):
    """A network for 1,000 classes, judged on photos of ten."""

    @cached_property
    def dense_classes(self) -> Tensor:
        """The classes that the dense network predicts for the test photos, (photos,)."""
        return self.outputs(self.dense).argmax(1)

    def measures(self, model: nn.Module) -> dict[str, float]:
        """Return the accuracy among 1,000 classes and among the ten, and the agreement with the dense network."""
        outputs = self.outputs(model)
        ten = torch.tensor(sorted(TEN.values()))
        predicted, among_ten = outputs.argmax(1), ten[outputs[:, ten].argmax(1)]
        return {
            "accuracy": float((predicted == self.test_labels).double().mean()),
            "top-5": float((outputs.topk(5).indices == self.test_labels[:, None]).any(1).double().mean()),
            "among ten": float((among_ten == self.test_labels).double().mean()),
            "agreement": float((predicted == self.dense_classes).double().mean()),
        }

    def measures_on_others(self, model: nn.Module, count: int, seed: int) -> dict[str, float]:
        """Return the agreement with the dense network on up to 400 photos that `draw` does not return."""
        others = self.images[self.order(seed)[count:][-OTHERS:]]
        dense, small = (outputs_in_batches(network, others).argmax(1) for network in (self.dense, model))
        return {"others": len(others), "agreement on others": float((small == dense).double().mean())}


def mobilenet_subject(folder: Path, calibration: str) -> PhotoClassifier:
    """Return MobileNetV2 with photos of one kind to calibrate on."""
    from pretrained.mobilenet import mobilenet_v2  # noqa: PLC0415 (needs the package of weights)

    return _photo_subject(f"MobileNetV2, {calibration}", folder, calibration, mobilenet_v2(), (MEAN, STD))


def efficientnet_subject(folder: Path, calibration: str) -> PhotoClassifier:
    """Return EfficientNet-Lite0 with photos of one kind to calibrate on."""
    from pretrained import efficientnet  # noqa: PLC0415 (needs the packages of code and weights)

    moments = efficientnet.MEAN, efficientnet.STD
    return _photo_subject(
        f"EfficientNet-Lite0, {calibration}", folder, calibration, efficientnet.efficientnet_lite0(), moments
    )


def _photo_subject(
    name: str, folder: Path, calibration: str, model: nn.Module, moments: tuple[Tensor, Tensor]
) -> PhotoClassifier:
    with zipfile.ZipFile(folder / "imagenette.zip") as archive:
        test_images, test_labels = ten_classes(archive, "validation")
        if calibration == OF_TEN:
            images, labels = ten_classes(archive, "training")
        else:
            images, labels = one_each(folder / "imagenet-sample-images")
    mean, std = (value[:, None, None] for value in moments)
    images, test_images = ((pixels - mean) / std for pixels in (images, test_images))
    return PhotoClassifier(name, images, test_images, test_labels, model, labels, BATCH)


def ten_classes(archive: zipfile.ZipFile, split: str) -> tuple[Tensor, Tensor]:
    """Return the photos of a split, (photos, 3, 224, 224) from 0 to 1, and their classes among 1,000, (photos,)."""
    names = sorted(name for name in archive.namelist() if name.startswith(f"{split}/") and name.endswith(".JPEG"))
    pixels = [np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in names]
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    return images.float() / 255, torch.tensor([TEN[name.split("/")[1]] for name in names])


def one_each(folder: Path) -> tuple[Tensor, Tensor]:
    """Return a photo of each class but the ten, (990, 3, 224, 224) from 0 to 1, and their classes, (990,).

    Args:
        folder: a clone of github.com/EliSchwartz/imagenet-sample-images, whose files, sorted by name, are in the order
            of the classes.
    """
    paths = sorted(folder.glob("n*.JPEG"))
    if len(paths) != CLASSES:
        raise SystemExit(f"{folder} has {len(paths)} photos, not one for each of {CLASSES} classes")
    kept = [number for number in range(CLASSES) if number not in TEN.values()]
    return torch.stack([centre_crop(paths[number]) for number in kept]), torch.tensor(kept)
