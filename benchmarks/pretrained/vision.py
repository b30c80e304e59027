"""A pretrained image network from end to end: prune without labels, save, load, export, run elsewhere."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

import secateur as sc
from pretrained.images import Photos


def run(build: Callable[[], nn.Module], photos: Photos, keep: float, steps: int) -> None:
    """Prune to a part of the MACs, and show what is left on photos that were not used."""
    model, calibration = build(), list(photos.calibration.split(16))
    start = time.perf_counter()
    repair = ["refit", "tune"] if steps else "refit"
    result = sc.prune(model, calibration, {"macs": keep}, test=list(photos.test.flatten(0, 1).split(15)),
                      repair=repair, tuning={"steps": steps or 300, "batch_size": 16})  # fmt: skip
    print(f"pruned in {time.perf_counter() - start:.0f} s\n\n{result.report}\n")
    centres = photos.test[:, 4]
    for name, network in (("dense", model), ("pruned", result.model)):
        print(f"{name}: {_right(network, centres, photos.labels)} of {len(centres)} centre crops right")
    _elsewhere(build, result, centres[:4])


@torch.no_grad()
def _right(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    return int((model(images).argmax(1) == labels).sum())


@torch.no_grad()
def _elsewhere(build: Callable[[], nn.Module], result: sc.Result, example: Tensor) -> None:
    """Saved, loaded, exported and run."""
    found = result.model(example)
    with tempfile.TemporaryDirectory() as folder:
        result.save(folder)
        loaded = sc.load(build(), folder)
        print(f"saved and loaded: bit-equal {torch.equal(loaded(example), found)}")
        path = Path(folder) / "small.onnx"
        torch.onnx.export(loaded, (example,), path, dynamo=True, verbose=False)
        session = onnxruntime.InferenceSession(str(path))
        (elsewhere,) = session.run(None, {session.get_inputs()[0].name: example.numpy()})
        print(f"onnxruntime: largest difference {np.abs(elsewhere - found.numpy()).max():.1e}")
