"""Detectors, which return lists of boxes: the error names the part to prune, whatever the form of the images."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur.errors import DataError, TraceError


class Detector(nn.Module):
    """A detector: a list of images in, a dict of boxes for each out, as many as there are bright channels."""

    def __init__(self, fewest: int = 0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fewest = fewest
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
        self.head = nn.Linear(4, 4)

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> list[dict[str, Tensor]]:
        if not all(image.dim() == 3 for image in images):
            raise ValueError("images is expected to be a list of 3d tensors")
        if targets is not None:
            raise ValueError("targets are for training")
        features = self.backbone(torch.stack(list(images))).mean((2, 3))
        return [{"boxes": self.head(row).expand(self.fewest + int((row > 0).sum()), 4)} for row in features]


IMAGES = list(torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)))
TARGETS = [{"boxes": torch.rand(1, 4)}, {"boxes": torch.rand(2, 4)}]
DETECTION: dict[str, Any] = {
    "a list of images": [IMAGES, IMAGES],
    "images and targets": [(IMAGES, TARGETS), (IMAGES, TARGETS)],
    "tuples, as zip collates them": [(tuple(IMAGES), tuple(TARGETS))],
    "a list as the one argument": [(IMAGES,), (IMAGES,)],
    "images by name": [{"images": IMAGES}],
    "stacked images": torch.rand(4, 3, 8, 8),
}


@pytest.mark.parametrize("boxes", [0, 1, 2])
@pytest.mark.parametrize("form", DETECTION)
def test_who_gives_a_detector_learns_which_part_to_prune(form: str, boxes: int) -> None:
    model = Detector(boxes).eval()
    for parameter in (model.backbone[2].weight, model.backbone[2].bias):
        torch.nn.init.constant_(parameter, -1.0)  # no channel is bright
    with pytest.raises(DataError, match=r"as detectors do.* sc\.prune\(model\.backbone, images\)"):
        sc.prune(model, DETECTION[form], {"macs": 0.5}, by="l2", repair=None)


def test_the_part_of_a_detector_is_pruned_as_advised() -> None:
    model = Detector().eval()
    with pytest.raises(TraceError, match=r"such as model\.backbone, .* model\.backbone = result\.model"):
        sc.trace(model, torch.rand(2, 3, 8, 8))
    result = sc.prune(model.backbone, [torch.rand(8, 3, 8, 8)], {"macs": 0.5}, by="l2", repair=None)
    model.backbone = result.model
    assert len(model(IMAGES)) == 2
