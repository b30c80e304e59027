"""torchvision's models without its compiled operators, which a CPU machine may lack: they only need the names."""

import torch

LIBRARY = torch.library.Library("torchvision", "DEF")


def define() -> None:
    """Name the operators that torchvision registers shapes for when it is imported."""
    for name in ("nms", "qnms"):
        LIBRARY.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
