"""Loaders of the papers' data, on files of the published formats that the test makes."""

import gzip
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from papers.datasets import cifar10, mnist
from papers.photo_datasets import CamVid, Cub200, camvid, cub200
from PIL import Image


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)


def write_cifar(folder: Path, binary: bool) -> tuple[np.ndarray, np.ndarray]:
    images, labels = pixels(12), np.arange(12) % 10
    for number in range(6):
        name = f"data_batch_{number + 1}" if number < 5 else "test_batch"
        batch = slice(2 * number, 2 * number + 2)
        if binary:
            rows = np.concatenate([labels[batch, None].astype(np.uint8), images[batch].reshape(2, -1)], 1)
            (folder / f"{name}.bin").write_bytes(rows.tobytes())
        else:
            content = {b"data": images[batch].reshape(2, -1), b"labels": labels[batch].tolist(), b"batch_label": b"one"}
            (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return images, labels


@pytest.mark.parametrize("binary", [False, True])
def test_cifar10(tmp_path: Path, binary: bool) -> None:
    images, labels = write_cifar(tmp_path, binary)
    split = cifar10(tmp_path)
    assert split.images.shape == (10, 3, 32, 32) and split.test_images.shape == (2, 3, 32, 32)
    assert split.labels.tolist() == labels[:10].tolist() and split.test_labels.tolist() == labels[10:].tolist()
    back = split.images[3] * torch.tensor([0.2470, 0.2435, 0.2616]).view(3, 1, 1)
    back = (back + torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1)) * 255
    assert np.allclose(back.numpy(), images[3], atol=1e-2)


class Harmful:
    def __reduce__(self) -> Any:
        return os.mkdir, ("harmed",)


def test_a_pickle_of_anything_but_arrays_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(tmp_path, False)
    (tmp_path / "data_batch_2").write_bytes(pickle.dumps({b"data": Harmful()}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pickle.UnpicklingError, match="no place in a file of images"):
        cifar10(tmp_path)
    assert not (tmp_path / "harmed").exists()


def test_mnist_packed_or_not(tmp_path: Path) -> None:
    for prefix, shape in (("train", (5, 28, 28)), ("t10k", (3, 28, 28))):
        images = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
        labels = np.arange(shape[0], dtype=np.uint8)
        for name, values in (("images-idx3", images), ("labels-idx1", labels)):
            head = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes()
            raw = head + values.tobytes()
            packed = prefix == "train"
            path = tmp_path / f"{prefix}-{name}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(raw) if packed else raw)
    split = mnist(tmp_path)
    assert split.images.shape == (5, 1, 28, 28) and split.test_images.shape == (3, 1, 28, 28)
    assert split.test_labels.tolist() == [0, 1, 2]
    assert float(split.images[0, 0, 0, 1]) == pytest.approx((1 / 255 - 0.1307) / 0.3081, rel=1e-5)


def test_cub200(tmp_path: Path) -> None:
    names = ["001.Albatross/a.jpg", "002.Auk/b.jpg", "002.Auk/c.jpg"]
    for number, name in enumerate(names):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = np.zeros((40, 60, 3), np.uint8)
        image[10:30, 20:50] = 100 + 50 * number  # what the bounding box holds
        Image.fromarray(image).save(path, quality=100, subsampling=0)
    lines = {
        "images": names, "image_class_labels": ["1", "2", "2"], "train_test_split": ["1", "0", "1"],
        "bounding_boxes": ["20.0 10.0 30.0 20.0"] * 3,
    }  # fmt: skip
    for name, values in lines.items():
        (tmp_path / f"{name}.txt").write_text("".join(f"{i} {v}\n" for i, v in enumerate(values, 1)))
    train, test = Cub200(tmp_path, True, 32, boxed=True), Cub200(tmp_path, False, 32)
    assert (len(train), len(test)) == (2, 1) and [train[i][1] for i in range(2)] == [0, 1] and test[0][1] == 1
    inside = train[1][0] * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    inside = (inside + torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) * 255
    assert torch.allclose(inside[:, 4:-4, 4:-4], torch.tensor(200.0), atol=2)
    whole = cub200(tmp_path)
    assert whole.images.shape == (2, 3, 224, 224) and whole.test_labels.tolist() == [1]


def test_camvid(tmp_path: Path) -> None:
    colors = {"Sky": (128, 128, 128), "Void": (0, 0, 0), "Car": (64, 0, 128)}
    (tmp_path / "label_colors.txt").write_text("".join(f"{r} {g} {b}\t\t{n}\n" for n, (r, g, b) in colors.items()))
    for folder in ("701_StillsRaw_full", "LabeledApproved_full"):
        (tmp_path / folder).mkdir()
    for name in ("one", "two"):
        Image.fromarray(np.full((72, 96, 3), 80, np.uint8)).save(tmp_path / f"701_StillsRaw_full/{name}.png")
        label = np.zeros((72, 96, 3), np.uint8)
        label[:36], label[36:, :48] = colors["Sky"], colors["Car"]
        Image.fromarray(label).save(tmp_path / f"LabeledApproved_full/{name}_L.png")
    for split, names in (("train", "one"), ("val", "one"), ("test", "two")):
        (tmp_path / f"{split}.txt").write_text(f"{names}\n")
    data = CamVid(tmp_path, "train", (36, 48))
    image, label = data[0]
    assert data.classes == ["Sky", "Car"] and image.shape == (3, 36, 48)
    assert label[:18].unique().tolist() == [0] and label[18:, :24].unique().tolist() == [1]
    assert label[18:, 24:].unique().tolist() == [-100]  # what cross entropy leaves out
    assert camvid(tmp_path).test_images.shape == (1, 3, 360, 480)
