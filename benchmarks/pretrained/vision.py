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
from pretrained.images import Moved, Photos

SHIFT = 8


def run(build: Callable[[], nn.Module], photos: Photos, keep: float, repair: list[str]) -> None:
    """Prune to a part of the MACs, and show what is left on photos that were not used."""
    model, calibration = build(), list(photos.calibration.split(16))
    start = time.perf_counter()
    tuning = {"batch_size": 16, "augment": Moved()} if "tune" in repair else None
    result = sc.prune(
        model, calibration, {"macs": keep}, test=list(photos.test.split(20)), repair=repair, tuning=tuning
    )
    print(f"pruned in {time.perf_counter() - start:.0f} s\n\n{result.report}\n")
    moved = float((_tops(model, photos.test.roll(SHIFT, 3)) == _tops(model, photos.test)).double().mean())
    print(f"dense: agrees with itself on {moved:.1%} of the photos when they are moved by {SHIFT} pixels")
    for name, network in (("dense", model), ("pruned", result.model)):
        print(f"{name}: {int((_tops(network, photos.test) == photos.labels).sum())} of {len(photos.test)} photos right")
    _elsewhere(build, result, photos.test[:4])


@torch.no_grad()
def _tops(model: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([model(part).argmax(1) for part in images.split(20)])


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
