"""The circle-square data and networks that LEAN's authors published, in one file of 35 MB.

    python -m benchmarks reproductions.published_circles REPOSITORY FILE

REPOSITORY is a checkout of github.com/schoonhovenrichard/LEAN_CNN_pruning. FILE gets the noisy images with 8 bits a
pixel (a step of .05 where the noise has a deviation of 1), the labels, and the weights, moments of Adam and masks of
the trained network and the 45 pruned ones.
"""

import argparse
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from papers.circles import LABELS, MixedScaleDense

DEPTH, STEPS, TARGET = 50, 15, 0.05
METHODS = {"lean": "LEAN", "l1": "indivL1", "norm": "indivSV"}
LOWEST, HIGHEST = -6.0, 6.75  # noisy pixels lie between; 8 bits are steps of .05
SPLITS = {"train": 500, "val": 100, "test": 50}
TRAINED = "trained_models/msd_network_d=50_epoch_47.torch"


@dataclass(frozen=True)
class PublishedNetwork:
    """A network of the authors.

    Args:
        parameters: by the names that `MixedScaleDense` has; pruned kernels are zero.
        moments: Adam's first and second, in that order, and the steps that were taken.
        masks: which kernels of each layer stay, one row of all layers' inputs (kernels,).
        accuracy: on the test images as its file's name gives it, 0 where it does not.
    """

    parameters: dict[str, Tensor]
    moments: tuple[dict[str, Tensor], dict[str, Tensor], int]
    masks: Tensor
    accuracy: float

    def model(self) -> MixedScaleDense:
        """The network, on images that are scaled as `Circles.images` are."""
        model = MixedScaleDense(DEPTH, mirrored=True)
        model.load_state_dict(self.parameters)
        return model.eval()


@dataclass(frozen=True)
class Circles:
    """The images, scaled as the networks take them, with their labels.

    Args:
        images: by split (images, 1, 256, 256).
        labels: by split (images, 256, 256).
    """

    images: dict[str, Tensor]
    labels: dict[str, Tensor]


def load_circles(file: Path, count: int | None = None) -> Circles:
    """Read the images of a file that `pack` wrote.

    Args:
        file: the file.
        count: how many images of each split; all by default.
    """
    with np.load(file) as saved:
        scale, shift = (float(saved[name]) for name in ("scale", "shift"))
        step = (HIGHEST - LOWEST) / 255
        images = {
            split: torch.from_numpy(saved[f"{split}.noisy"][:count]).float().mul_(step).add_(LOWEST)[:, None]
            for split in SPLITS
        }
        labels = {split: torch.from_numpy(saved[f"{split}.label"][:count]).long() for split in SPLITS}
    return Circles({split: x.mul_(scale).add_(shift) for split, x in images.items()}, labels)


def load_network(file: Path, by: str | None = None, step: int = 0) -> PublishedNetwork:
    """Read the trained network, or the one that a method left after a step (1 to 15).

    Args:
        file: a file that `pack` wrote.
        by: "lean", "l1" or "norm"; None for the trained network.
        step: after which step of pruning and fine-tuning.
    """
    key = "dense" if by is None else f"{by}.{step}"
    with np.load(file) as saved:
        vectors = [torch.from_numpy(saved[f"{key}.{name}"]) for name in ("parameters", "first", "second")]
        masks = torch.from_numpy(np.unpackbits(saved[f"{key}.masks"], count=kernels_in(DEPTH)).astype(bool))
        steps, accuracy = int(saved[f"{key}.steps"]), float(saved[f"{key}.accuracy"])
    parameters, first, second = (split_vector(vector) for vector in vectors)
    rows = masks.split([depth + 1 for depth in range(DEPTH)])
    for number, row in enumerate(rows):
        parameters[f"layers.{number}.weight"] *= row[None, :, None, None]
    return PublishedNetwork(parameters, (first, second, steps), masks, accuracy)


def kernels_in(depth: int) -> int:
    """How many 3 x 3 kernels there are: layer i reads the image and i maps."""
    return depth * (depth + 1) // 2


def split_vector(vector: Tensor) -> dict[str, Tensor]:
    """One vector of all parameters, by name."""
    shapes = {name: value.shape for name, value in MixedScaleDense(DEPTH).state_dict().items()}
    parts = vector.split([shape.numel() for shape in shapes.values()])
    return {name: part.reshape(shape).clone() for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def pack(repository: Path, file: Path) -> None:
    """Write what `load_circles` and `load_network` read.

    Args:
        repository: a checkout of the authors' repository.
        file: the .npz file to write.
    """
    folder = repository / "examples"
    content: dict[str, Any] = {}
    for split, count in SPLITS.items():
        noisy = np.stack([_image(folder / f"data/{split}/noisy/{number:05}.tiff") for number in range(count)])
        step = (HIGHEST - LOWEST) / 255
        content[f"{split}.noisy"] = np.rint((noisy - LOWEST) / step).clip(0, 255).astype(np.uint8)
        content[f"{split}.label"] = np.stack(
            [_image(folder / f"data/{split}/label/{number:05}.tiff") for number in range(count)]
        )
    trained = torch.load(folder / TRAINED, map_location="cpu", weights_only=True)
    content["scale"] = trained["state_dict"]["0.weight"].numpy().reshape(())
    content["shift"] = trained["state_dict"]["0.bias"].numpy().reshape(())
    content |= _packed_network("dense", trained, 0.0)
    for by, name in METHODS.items():
        pattern = re.compile(rf"msd_network2_{name}_d=50_ratio=([0-9.]+)_acc=([0-9.]+)\.torch")
        files = [(pattern.fullmatch(path.name), path) for path in (folder / "pruned_models").iterdir()]
        pruned = sorted(((float(m[1]), float(m[2]), path) for m, path in files if m), reverse=True)
        for number, (_, accuracy, path) in enumerate(pruned, 1):
            saved = torch.load(path, map_location="cpu", weights_only=True)
            content |= _packed_network(f"{by}.{number}", saved, accuracy)
    np.savez_compressed(file, **content)


def _image(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def _packed_network(key: str, saved: dict[str, Any], accuracy: float) -> dict[str, Any]:
    """A network's state and its optimizer's as a few arrays."""
    state = saved["state_dict"]
    own = {name.removeprefix("1.0."): value for name, value in state.items()}
    optimizer = saved["optimizer"]
    order = _optimizer_order(own)
    moments = dict(zip(order, (optimizer["state"][key] for key in optimizer["param_groups"][0]["params"]), strict=True))
    weights = {name: own[f"{name}_orig"] if f"{name}_orig" in own else own[name] for name in order}
    ones = (torch.ones(1, 1 + number, 3, 3) for number in range(DEPTH))
    masks = [own.get(f"msd_block.weight{number}_mask", one) for number, one in enumerate(ones)]
    bias = own.get("msd_block.bias_mask", torch.ones(DEPTH))
    weights["msd_block.bias"] = weights["msd_block.bias"] * bias
    kept = torch.cat([mask[0].flatten(1).any(1) for mask in masks])
    return {
        f"{key}.parameters": _vector(weights),
        f"{key}.first": _vector({name: each["exp_avg"] for name, each in moments.items()}),
        f"{key}.second": _vector({name: each["exp_avg_sq"] for name, each in moments.items()}),
        f"{key}.steps": int(next(iter(moments.values()))["step"]),
        f"{key}.masks": np.packbits(kept.numpy()),
        f"{key}.accuracy": accuracy,
    }


def _optimizer_order(state: Iterable[str]) -> list[str]:
    """Names of their parameters, in the order in which the optimizer was given them before any was pruned."""
    return [
        "msd_block.bias", *(f"msd_block.weight{number}" for number in range(DEPTH)),
        "final_layer.linear.weight", "final_layer.linear.bias",
    ]  # fmt: skip


def _vector(own: dict[str, Tensor]) -> np.ndarray:
    """Their parameters in the order of `MixedScaleDense`."""
    parts: list[Tensor] = []
    for number in range(DEPTH):
        parts += [own[f"msd_block.weight{number}"].flatten(), own["msd_block.bias"][number : number + 1]]
    parts += [own["final_layer.linear.weight"].flatten(), own["final_layer.linear.bias"]]
    vector: np.ndarray = torch.cat([part.float() for part in parts]).numpy()
    return vector


def main() -> None:
    """Pack what the authors published."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path)
    parser.add_argument("file", type=Path)
    args = parser.parse_args()
    pack(args.repository, args.file)
    with np.load(args.file) as saved:
        assert {saved[f"{split}.label"].max() for split in SPLITS} == {LABELS - 1}


if __name__ == "__main__":
    main()
