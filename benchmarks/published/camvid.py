"""CamVid: street scenes with a class for every pixel."""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from published.espnet import load_espnet
from published.subject import PublishedSubject

MEAN, STD = torch.tensor([108.059, 106.447, 103.114]), torch.tensor([70.977, 71.648, 68.869])  # blue, green, red
CLASSES, VOID = 11, 11
BATCH = 4
MEASURE = "mean intersection over union"


def mean_iou(output: Tensor, labels: Tensor) -> Tensor:
    """Return the mean intersection over union of eleven classes; pixels of no class don't count.

    A class that is neither in the labels nor in the predictions counts as 0.

    Args:
        output: class scores (images, 12, height, width).
        labels: class numbers (images, height, width); 11 is none.
    """
    return _mean_iou_of_counts(_counts(output.argmax(1), labels))


def _counts(predictions: Tensor, labels: Tensor) -> Tensor:
    """Return the number of pixels for each pair of classes, (labels, predictions)."""
    pairs = labels.flatten() * (CLASSES + 1) + predictions.flatten()
    return torch.bincount(pairs, minlength=(CLASSES + 1) ** 2).view(CLASSES + 1, CLASSES + 1)


def _mean_iou_of_counts(counts: Tensor) -> Tensor:
    valid = counts[:CLASSES]
    hits = valid.diagonal()
    union = valid.sum(1) + valid.sum(0)[:CLASSES] - hits
    return (hits / union.clamp_min(1)).mean()


@dataclass(frozen=True)
class Segmentation(PublishedSubject):
    """A network with a class for every pixel, judged by the mean intersection over union."""

    @torch.no_grad()
    def measures(self, model: nn.Module) -> dict[str, float]:
        """Return the mean intersection over union on the test images, as "accuracy"."""
        model.eval()
        batches = zip(self.test_images.split(self.batch), self.test_labels.split(self.batch), strict=True)
        counts = sum(_counts(model(images).argmax(1), labels) for images, labels in batches)
        return {"accuracy": float(_mean_iou_of_counts(torch.as_tensor(counts)))}


def camvid_subject(folder: Path) -> Segmentation:
    """Return ESPNet with the training and the test images of the archive."""
    with zipfile.ZipFile(folder / "camvid.zip") as archive:
        images, labels = _read(archive, "train")
        test_images, test_labels = _read(archive, "test")
    model = load_espnet(folder / "camvid_espnet.safetensors")
    return Segmentation("ESPNet", images, test_images, test_labels, model, labels, BATCH)


def _read(archive: zipfile.ZipFile, split: str) -> tuple[Tensor, Tensor]:
    """Return the images (images, 3, height, width) of a split and their classes (images, height, width)."""
    names = sorted(name for name in archive.namelist() if name.startswith(f"CamVid/{split}/") and name.endswith(".png"))
    images = [_pixels(archive, name)[..., 2::-1].copy() for name in names]  # blue, green, red
    labels = [_pixels(archive, name.replace(f"/{split}/", f"/{split}annot/")) for name in names]
    values = (torch.from_numpy(np.stack(images)).float() - MEAN) / STD / 255
    return values.permute(0, 3, 1, 2).contiguous(), torch.from_numpy(np.stack(labels)).long()


def _pixels(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(archive.read(name))))
