"""Stubs of torchvision's compiled operators, of which its models need the names alone."""

import contextlib
import importlib

import torch

LIBRARY = torch.library.Library("torchvision", "FRAGMENT")


def define_operators() -> None:
    """Define the operators whose shapes torchvision registers when it is imported, where its own are missing."""
    with contextlib.suppress(ImportError):
        try:
            importlib.import_module("torchvision")
        except RuntimeError:  # an operator does not exist
            for name in ("nms", "qnms"):
                LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
