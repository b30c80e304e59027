"""The networks whose speed is measured, with examples to prune with and labelled images to judge by."""

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from networks.cifar_resnet import load_cifar_resnet
from networks.trained import trained
from pretrained.mobilenet import MobileNetV2
from torch import Tensor, nn

from secateur import demo

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
EXAMPLES, TESTED = 256, 2_000
PHOTOS, PHOTOS_TESTED, SIDE = 64, 200, 224
CLASSES = ("n01440764", "n02102040", "n02979186", "n03000684", "n03028079", "n03394916", "n03417042", "n03425413",
           "n03445777", "n03888257")  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """A trained network.

    Args:
        model: in evaluation mode, in the layout in which it is run.
        calibration: images to prune with, in batches of 32.
        test: images that neither training nor pruning saw.
        labels: their classes.
        classes: the outputs that stand for these classes, where there are others; None for all.
    """

    model: nn.Module
    calibration: list[Tensor]
    test: Tensor
    labels: Tensor
    classes: Tensor | None = None

    @torch.no_grad()
    def accuracy(self, model: nn.Module) -> float:
        """The fraction of test images whose top class, of those there are, is right."""
        outputs = torch.cat([model(part) for part in self.test.split(100)])
        outputs = outputs if self.classes is None else outputs[:, self.classes]
        return float((outputs.argmax(1) == self.labels).double().mean())


def fashion(data: Path | None, name: str) -> Subject:
    """A network of `benchmarks/networks` and the images that ship with Secateur."""
    images, labels = (torch.cat(parts) for parts in zip(*demo.test(), strict=True))
    return Subject(trained(name).to(memory_format=torch.channels_last), demo.calibration(), images, labels)


def cifar(data: Path | None, depth: int) -> Subject:
    """A trained CIFAR ResNet and images of CIFAR-10."""
    folder = _folder(data)
    model = load_cifar_resnet(folder / f"cifar10_resnet{depth}.safetensors").to(memory_format=torch.channels_last)
    with np.load(folder / "cifar10.npz") as arrays:
        train, test = (_normalised(torch.from_numpy(arrays[name])) for name in ("xtrain", "xtest"))
        labels = torch.from_numpy(arrays["ytest"]).long()
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:EXAMPLES]
    spread = slice(None, None, max(len(test) // TESTED, 1))  # the images are in the order of their classes
    return Subject(model, list(train[order].split(32)), test[spread][:TESTED], labels[spread][:TESTED])


def mobilenet(data: Path | None) -> Subject:
    """MobileNetV2 with its ImageNet weights and photos of ten classes."""
    folder = _folder(data)
    model = MobileNetV2()
    model.load_state_dict(torch.load(folder / "mobilenet_v2-b0353104.pth", weights_only=True))
    with zipfile.ZipFile(folder / "imagenette.zip") as photos:
        train = [name for name in sorted(photos.namelist()) if name.startswith("training/") and name.endswith("JPEG")]
        test = [name for name in sorted(photos.namelist()) if name.startswith("validation/") and name.endswith("JPEG")]
        calibration = _photos(photos, train[:: max(len(train) // PHOTOS, 1)][:PHOTOS])
        chosen = test[:: max(len(test) // PHOTOS_TESTED, 1)][:PHOTOS_TESTED]
        images = _photos(photos, chosen)
    labels = torch.tensor([CLASSES.index(Path(name).parent.name) for name in chosen])
    outputs = torch.tensor([0, 217, 482, 491, 497, 566, 569, 571, 574, 701])
    model = model.eval().to(memory_format=torch.channels_last)
    return Subject(model, list(calibration.split(32)), images, labels, outputs)


def _photos(archive: zipfile.ZipFile, names: list[str]) -> Tensor:
    from PIL import Image  # noqa: PLC0415 (the other networks do without it)

    photos = [np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in names]
    return _normalised(torch.from_numpy(np.stack([pixels[:SIDE, :SIDE] for pixels in photos])))


def _normalised(pixels: Tensor) -> Tensor:
    """Pixels (images, height, width, 3) as a network takes them."""
    values = ((pixels.float() / 255 - MEAN) / STD).permute(0, 3, 1, 2)
    return values.contiguous(memory_format=torch.channels_last)


def _folder(data: Path | None) -> Path:
    if data is None:
        raise SystemExit("--data DIR is needed for this network")
    return data


SUBJECTS: Mapping[str, Callable[[Path | None], Subject]] = {
    "demo": partial(fashion, name="residual"),
    "vgg": partial(fashion, name="vgg"),
    "separable": partial(fashion, name="separable"),
    "resnet20": partial(cifar, depth=20),
    "resnet56": partial(cifar, depth=56),
    "mobilenet": mobilenet,
}
