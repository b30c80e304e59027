"""torchvision's models without its compiled operators, which a CPU machine may lack: they only need the names."""

import contextlib
import importlib

import torch

LIBRARY = torch.library.Library("torchvision", "FRAGMENT")


def define() -> None:
    """Name the operators that torchvision registers shapes for when it is imported, where it has none of its own."""
    with contextlib.suppress(ImportError):
        try:
            importlib.import_module("torchvision")
        except RuntimeError:  # an operator does not exist
            for name in ("nms", "qnms"):
                LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
