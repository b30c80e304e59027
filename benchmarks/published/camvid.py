"""CamVid: street scenes with a class for every pixel."""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from published.cifar import Subject
from published.espnet import load_espnet

MEAN, STD = torch.tensor([108.059, 106.447, 103.114]), torch.tensor([70.977, 71.648, 68.869])  # blue, green, red
CLASSES, VOID = 11, 11
BATCH = 4


@dataclass(frozen=True)
class Segmentation(Subject):
    """A network with a class for every pixel, judged by the mean intersection over union of eleven classes."""

    def draw(self, count: int, seed: int) -> list[Tensor]:
        """Return so many images in batches of four, drawn anew for each seed."""
        return [part for batch in super().draw(count, seed) for part in batch.split(BATCH)]

    @torch.no_grad()
    def accuracy(self, model: nn.Module) -> float:
        """Return the mean intersection over union on the test images, over classes."""
        model.eval()
        counts = torch.zeros(CLASSES + 1, CLASSES + 1)  # (labels, predictions)
        for images, labels in zip(self.test_images.split(BATCH), self.test_labels.split(BATCH), strict=True):
            pairs = labels.flatten() * (CLASSES + 1) + model(images).argmax(1).flatten()
            counts += torch.bincount(pairs, minlength=(CLASSES + 1) ** 2).view_as(counts)
        valid = counts[:CLASSES]
        hits = valid.diagonal()
        union = valid.sum(1) + valid.sum(0)[:CLASSES] - hits
        return float((hits / union.clamp_min(1)).mean())


def camvid_subject(folder: Path) -> Segmentation:
    """Return ESPNet with the training and the test images of the archive."""
    with zipfile.ZipFile(folder / "camvid.zip") as archive:
        images, _ = _read(archive, "train")
        test_images, labels = _read(archive, "test")
    return Segmentation("ESPNet", images, test_images, labels, load_espnet(folder / "camvid_espnet.safetensors"))


def _read(archive: zipfile.ZipFile, part: str) -> tuple[Tensor, Tensor]:
    """Return the images (images, 3, height, width) of a part and their classes (images, height, width)."""
    names = sorted(name for name in archive.namelist() if name.startswith(f"CamVid/{part}/") and name.endswith(".png"))
    images = [_pixels(archive, name)[..., 2::-1].copy() for name in names]  # blue, green, red
    labels = [_pixels(archive, name.replace(f"/{part}/", f"/{part}annot/")) for name in names]
    values = (torch.from_numpy(np.stack(images)).float() - MEAN) / STD / 255
    return values.permute(0, 3, 1, 2).contiguous(), torch.from_numpy(np.stack(labels)).long()


def _pixels(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(archive.read(name))))
