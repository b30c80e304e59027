"""The networks whose speed is measured, with examples to prune with and labelled images to test on."""

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from networks.cifar_resnet import load_cifar_resnet
from networks.pixels import normalise_pixels
from networks.trained import trained
from pretrained.mobilenet import MobileNetV2
from torch import Tensor, nn

from secateur import demo

EXAMPLES, TESTED = 256, 2_000
PHOTOS, PHOTOS_TESTED, SIDE = 64, 200, 224
CLASSES = ("n01440764", "n02102040", "n02979186", "n03000684", "n03028079", "n03394916", "n03417042", "n03425413",
           "n03445777", "n03888257")  # fmt: skip


@dataclass(frozen=True)
class TimedSubject:
    """A trained network with its images.

    Args:
        model: the network in evaluation mode, in the memory layout in which it is timed.
        calibration: images to prune with, in batches of 32.
        test: images that neither training nor pruning uses.
        labels: the classes of the test images.
        classes: the outputs of the classes of the test images; None for all outputs.
    """

    model: nn.Module
    calibration: list[Tensor]
    test: Tensor
    labels: Tensor
    classes: Tensor | None = None

    @torch.no_grad()
    def accuracy(self, model: nn.Module) -> float:
        """Return the accuracy on the test images, of the largest output among their classes."""
        outputs = torch.cat([model(batch) for batch in self.test.split(100)])
        outputs = outputs if self.classes is None else outputs[:, self.classes]
        return float((outputs.argmax(1) == self.labels).double().mean())


def timed_fashion_network(data: Path | None, name: str) -> TimedSubject:
    """A network of `benchmarks/networks` and the images that ship with Secateur."""
    images, labels = (torch.cat(batches) for batches in zip(*demo.test(), strict=True))
    return TimedSubject(trained(name).to(memory_format=torch.channels_last), demo.calibration(), images, labels)


def timed_cifar_resnet(data: Path | None, depth: int) -> TimedSubject:
    """A trained CIFAR ResNet and images of CIFAR-10."""
    folder = _required_folder(data)
    model = load_cifar_resnet(folder / f"cifar10_resnet{depth}.safetensors").to(memory_format=torch.channels_last)
    with np.load(folder / "cifar10.npz") as arrays:
        train, test = (normalise_pixels(arrays[name]) for name in ("xtrain", "xtest"))
        labels = torch.from_numpy(arrays["ytest"]).long()
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:EXAMPLES]
    spread = slice(None, None, max(len(test) // TESTED, 1))  # the images are in the order of their classes
    return TimedSubject(model, list(train[order].split(32)), test[spread][:TESTED], labels[spread][:TESTED])


def timed_mobilenet(data: Path | None) -> TimedSubject:
    """MobileNetV2 with its ImageNet weights and photos of ten classes."""
    folder = _required_folder(data)
    model = MobileNetV2()
    model.load_state_dict(torch.load(folder / "mobilenet_v2-b0353104.pth", weights_only=True))
    with zipfile.ZipFile(folder / "imagenette.zip") as photos:
        train = [name for name in sorted(photos.namelist()) if name.startswith("training/") and name.endswith("JPEG")]
        test = [name for name in sorted(photos.namelist()) if name.startswith("validation/") and name.endswith("JPEG")]
        calibration = _read_photos(photos, train[:: max(len(train) // PHOTOS, 1)][:PHOTOS])
        chosen = test[:: max(len(test) // PHOTOS_TESTED, 1)][:PHOTOS_TESTED]
        images = _read_photos(photos, chosen)
    labels = torch.tensor([CLASSES.index(Path(name).parent.name) for name in chosen])
    outputs = torch.tensor([0, 217, 482, 491, 497, 566, 569, 571, 574, 701])
    model = model.eval().to(memory_format=torch.channels_last)
    return TimedSubject(model, list(calibration.split(32)), images, labels, outputs)


def _read_photos(archive: zipfile.ZipFile, names: list[str]) -> Tensor:
    from PIL import Image  # noqa: PLC0415 (the other networks do without it)

    photos = [np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in names]
    return normalise_pixels(np.stack([pixels[:SIDE, :SIDE] for pixels in photos]))


def _required_folder(data: Path | None) -> Path:
    if data is None:
        raise SystemExit("--data DIR is needed for this network")
    return data


SUBJECTS: Mapping[str, Callable[[Path | None], TimedSubject]] = {
    "demo": partial(timed_fashion_network, name="residual"),
    "vgg": partial(timed_fashion_network, name="vgg"),
    "separable": partial(timed_fashion_network, name="separable"),
    "resnet20": partial(timed_cifar_resnet, depth=20),
    "resnet56": partial(timed_cifar_resnet, depth=56),
    "mobilenet": timed_mobilenet,
}
