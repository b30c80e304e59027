"""The circle-square data and networks that LEAN's authors published, in one file of 35 MB.

    python -m benchmarks reproductions.published_circles REPOSITORY FILE

REPOSITORY is a checkout of github.com/schoonhovenrichard/LEAN_CNN_pruning. FILE gets the noisy images with 8 bits a
pixel (a step of .05 where the noise has a deviation of 1), the labels, and the weights, moments of Adam and masks of
the trained network and the 45 pruned ones.
"""

import argparse
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from papers.circle_files import DEPTH, HIGHEST, LOWEST, METHODS, SPLITS
from papers.msd_network import LABELS

TRAINED = "trained_models/msd_network_d=50_epoch_47.torch"


def pack(repository: Path, file: Path) -> None:
    """Write the file that `load_circles` and `load_network` read.

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
    """Return a network's state and its optimizer's as a few arrays."""
    state = saved["state_dict"]
    parameters = {name.removeprefix("1.0."): value for name, value in state.items()}
    optimizer = saved["optimizer"]
    order = _optimizer_order(parameters)
    moments = dict(zip(order, (optimizer["state"][key] for key in optimizer["param_groups"][0]["params"]), strict=True))
    weights = {name: parameters[f"{name}_orig"] if f"{name}_orig" in parameters else parameters[name] for name in order}
    ones = (torch.ones(1, 1 + number, 3, 3) for number in range(DEPTH))
    masks = [parameters.get(f"msd_block.weight{number}_mask", one) for number, one in enumerate(ones)]
    bias = parameters.get("msd_block.bias_mask", torch.ones(DEPTH))
    weights["msd_block.bias"] = weights["msd_block.bias"] * bias
    kept = torch.cat([mask[0].flatten(1).any(1) for mask in masks])
    return {
        f"{key}.parameters": _vector(weights),
        f"{key}.first": _vector({name: moment["exp_avg"] for name, moment in moments.items()}),
        f"{key}.second": _vector({name: moment["exp_avg_sq"] for name, moment in moments.items()}),
        f"{key}.steps": int(next(iter(moments.values()))["step"]),
        f"{key}.masks": np.packbits(kept.numpy()),
        f"{key}.accuracy": accuracy,
    }


def _optimizer_order(state: Iterable[str]) -> list[str]:
    """Return the names of the authors' parameters in the order of their optimizer, before any was pruned."""
    return [
        "msd_block.bias", *(f"msd_block.weight{number}" for number in range(DEPTH)),
        "final_layer.linear.weight", "final_layer.linear.bias",
    ]  # fmt: skip


def _vector(parameters: dict[str, Tensor]) -> np.ndarray:
    """Return the authors' parameters in the order of `MixedScaleDense`."""
    vectors: list[Tensor] = []
    for number in range(DEPTH):
        vectors += [
            parameters[f"msd_block.weight{number}"].flatten(),
            parameters["msd_block.bias"][number : number + 1],
        ]
    vectors += [parameters["final_layer.linear.weight"].flatten(), parameters["final_layer.linear.bias"]]
    vector: np.ndarray = torch.cat([values.float() for values in vectors]).numpy()
    return vector


def main() -> None:
    """Read the options, and pack the authors' files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path)
    parser.add_argument("file", type=Path)
    args = parser.parse_args()
    pack(args.repository, args.file)
    with np.load(args.file) as saved:
        assert {saved[f"{split}.label"].max() for split in SPLITS} == {LABELS - 1}


if __name__ == "__main__":
    main()
