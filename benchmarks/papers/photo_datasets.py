"""CUB-200-2011 and CamVid, read from the folders in which their authors publish them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from papers.split import Split, scale_pixels

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VOID = -100


class Cub200(Dataset[tuple[Tensor, int]]):
    """CUB-200-2011 (Wah et al. 2011): birds of 200 species, cut to their bounding boxes if asked for.

    Args:
        folder: CUB_200_2011, with images.txt, image_class_labels.txt, train_test_split.txt, bounding_boxes.txt and
            images/.
        train: the training images or the test images.
        size: of the side to which images are scaled.
        boxed: cut to the bounding box.
    """

    def __init__(self, folder: Path, train: bool, size: int = 224, boxed: bool = False) -> None:
        self.folder, self.size = folder, size
        paths, labels, split = (_read_table(folder / f"{name}.txt") for name in (
            "images", "image_class_labels", "train_test_split"
        ))  # fmt: skip
        wanted = [key for key in paths if (split[key][0] == "1") == train]
        self.paths = [folder / "images" / paths[key][0] for key in wanted]
        self.labels = [int(labels[key][0]) - 1 for key in wanted]
        boxes = _read_table(folder / "bounding_boxes.txt") if boxed else {}
        self.boxes = [tuple(map(float, boxes[key])) if boxed else None for key in wanted]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.paths[index]) as opened:
            image = opened.convert("RGB")
        box = self.boxes[index]
        if box is not None:
            x, y, width, height = box
            image = image.crop((round(x), round(y), round(x + width), round(y + height)))
        pixels = np.asarray(image.resize((self.size, self.size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        return scale_pixels(pixels[None], IMAGENET_MEAN, IMAGENET_STD)[0], self.labels[index]


def _read_table(path: Path) -> dict[str, list[str]]:
    """Lines of a key and values."""
    rows = (line.split() for line in path.read_text().splitlines() if line.strip())
    return {row[0]: row[1:] for row in rows}


def cub200(folder: Path) -> Split:
    """Read the training and test images of CUB-200-2011 into memory."""
    return Split(*_stacked(Cub200(folder, True)), *_stacked(Cub200(folder, False)))


class CamVid(Dataset[tuple[Tensor, Tensor]]):
    """CamVid (Brostow et al. 2009): frames of driving, with a class for each pixel.

    Args:
        folder: with 701_StillsRaw_full/NAME.png, LabeledApproved_full/NAME_L.png and label_colors.txt (red, green,
            blue, name); of splits, NAMEs in train.txt, val.txt, test.txt.
        split: "train", "val" or "test".
        size: (height, width) to which frames are scaled.
    """

    def __init__(self, folder: Path, split: str, size: tuple[int, int] = (360, 480)) -> None:
        self.folder, self.size = folder, size
        self.names = (folder / f"{split}.txt").read_text().split()
        rows = (line.split() for line in (folder / "label_colors.txt").read_text().splitlines() if line.strip())
        colors = {row[3]: tuple(map(int, row[:3])) for row in rows}
        self.classes = [name for name in colors if name != "Void"]
        self.codes = {_code(*colors[name]): number for number, name in enumerate(self.classes)}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        name, (height, width) = self.names[index], self.size
        with Image.open(self.folder / "701_StillsRaw_full" / f"{name}.png") as opened:
            image = opened.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
        with Image.open(self.folder / "LabeledApproved_full" / f"{name}_L.png") as opened:
            colors = np.asarray(opened.convert("RGB").resize((width, height), Image.Resampling.NEAREST)).astype(int)
        codes = _code(colors[..., 0], colors[..., 1], colors[..., 2])
        labels = np.full(codes.shape, VOID)
        for code, number in self.codes.items():
            labels[codes == code] = number
        pixels = np.asarray(image).transpose(2, 0, 1)[None]
        return scale_pixels(pixels, IMAGENET_MEAN, IMAGENET_STD)[0], torch.tensor(labels).long()


def _code(red: Any, green: Any, blue: Any) -> Any:
    return (red * 256 + green) * 256 + blue


def camvid(folder: Path) -> Split:
    """Read CamVid into memory."""
    return Split(*_stacked(CamVid(folder, "train")), *_stacked(CamVid(folder, "test")))


def _stacked(data: Dataset[Any]) -> tuple[Tensor, Tensor]:
    items = [data[index] for index in range(len(data))]  # type: ignore[arg-type]
    return torch.stack([item[0] for item in items]), torch.stack([torch.as_tensor(item[1]) for item in items])
