"""A pretrained image network from end to end: prune without labels, save, load, export, run in onnxruntime."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

import secateur as sc
from pretrained.images import FlipAndShift, Photos

SHIFT = 8


def prune_vision_network(build: Callable[[], nn.Module], photos: Photos, keep: float, repair: list[str]) -> None:
    """Prune to a fraction of the MACs, and print the quality on photos that were not used.

    Args:
        build: returns the network.
        photos: the photos.
        keep: the fraction of the MACs.
        repair: the repairs.
    """
    model, calibration = build(), list(photos.calibration.split(16))
    start = time.perf_counter()
    tuning = {"batch_size": 16, "augment": FlipAndShift()} if "tune" in repair else None
    result = sc.prune(
        model, calibration, {"macs": keep}, test=list(photos.test.split(20)), repair=repair, tuning=tuning
    )
    print(f"pruned in {time.perf_counter() - start:.0f} s\n\n{result.report}\n")
    is_same = _top_classes(model, photos.test.roll(SHIFT, 3)) == _top_classes(model, photos.test)
    agreement = float(is_same.double().mean())
    print(f"dense: agrees with itself on {agreement:.1%} of the photos when they are moved by {SHIFT} pixels")
    for name, network in (("dense", model), ("pruned", result.model)):
        correct = int((_top_classes(network, photos.test) == photos.labels).sum())
        print(f"{name}: {correct} of {len(photos.test)} photos right")
    _check_files(build, result, photos.test[:4])


@torch.no_grad()
def _top_classes(model: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([model(batch).argmax(1) for batch in images.split(20)])


@torch.no_grad()
def _check_files(build: Callable[[], nn.Module], result: sc.Result, example: Tensor) -> None:
    """Save, load, export and run the small network, and print how far the outputs differ."""
    output = result.model(example)
    with tempfile.TemporaryDirectory() as folder:
        result.save(folder)
        loaded = sc.load(build(), folder)
        print(f"saved and loaded: bit-equal {torch.equal(loaded(example), output)}")
        path = Path(folder) / "small.onnx"
        torch.onnx.export(loaded, (example,), path, dynamo=True, verbose=False)
        session = onnxruntime.InferenceSession(str(path))
        (exported_output,) = session.run(None, {session.get_inputs()[0].name: example.numpy()})
        print(f"onnxruntime: largest difference {np.abs(exported_output - output.numpy()).max():.1e}")
