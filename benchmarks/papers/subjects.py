"""Trained networks to repeat the papers' experiments on, and short trainings of them."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from networks.trained import trained
from provenance import results_folder
from torch import Tensor, nn
from torch.nn import functional as F
from train_demo_network import shifted_and_flipped

from papers.datasets import DATASETS, Split
from papers.settings import Settings

RESULTS = results_folder("reproductions")
VGG16 = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)


class Vgg16(nn.Module):
    """VGG-16 with batch norm.

    Images of 32 x 32 pixels have one linear layer behind the convolutions, larger ones three.

    Args:
        classes: the number of outputs.
        size: the side of the images, in pixels.
        width: the factor of the published numbers of channels.
    """

    def __init__(self, classes: int, size: int, width: float = 1.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for published_width in VGG16:
            if not published_width:
                layers.append(nn.MaxPool2d(2))
                continue
            out_channels = round(published_width * width)
            layers += [nn.Conv2d(channels, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels), nn.ReLU()]
            channels = out_channels
        self.features = nn.Sequential(*layers)
        wide = [nn.Linear(channels * (size // 32) ** 2, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU()]
        self.classifier = nn.Sequential(
            *(wide if size > 32 else []), nn.Linear(channels if size <= 32 else 4096, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


class Lenet(nn.Module):
    """Two convolutions and two linear layers, without batch norm."""

    def __init__(self) -> None:
        super().__init__()
        convolutions: list[nn.Module] = []
        for channels, width in ((1, 32), (32, 64)):
            convolutions += [nn.Conv2d(channels, width, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*convolutions)
        self.classifier = nn.Sequential(nn.Linear(64 * 49, 256), nn.ReLU(), nn.Linear(256, 10))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


@dataclass(frozen=True)
class Subject:
    """A trained network with its data."""

    name: str
    seed: int
    split: Split
    make: Callable[[], nn.Module]

    def model(self) -> nn.Module:
        return self.make().to(memory_format=torch.channels_last)

    def images(self, count: int) -> list[tuple[Tensor, Tensor]]:
        """So many labelled training images, others for each seed."""
        draws = torch.Generator().manual_seed(1000 + self.seed)
        chosen = torch.randperm(len(self.split.labels), generator=draws)[:count]
        return list(zip(self.split.images[chosen].split(50), self.split.labels[chosen].split(50), strict=True))

    @torch.no_grad()
    def accuracy(self, model: nn.Module, most: int = 10_000) -> float:
        model.eval()
        predicted = torch.cat([model(part) for part in self.split.test_images[:most].split(500)]).argmax(1)
        return float((predicted == self.split.test_labels[:most]).double().mean())


def subject(settings: Settings, seed: int, network: str = "vgg") -> Subject:
    """The network of an experiment: those of the benchmarks on Fashion-MNIST, VGG-16 with weights of yours on others.

    Args:
        settings: the settings of the experiment. `weights` is a state dict of `Vgg16`, as `torch.save` writes it.
            Without it, a network for CIFAR-10 is trained for `epochs` epochs and kept beside the results.
        seed: the number of the trained network and of the calibration images.
        network: on Fashion-MNIST; "lenet" is trained on the spot, in two minutes, and kept beside the results.
    """
    dataset, weights = settings.dataset, settings.weights
    split = DATASETS[dataset](settings.data)
    if dataset == "fashion" and network == "lenet":
        return _kept(network, seed, split, RESULTS / f"lenet-{seed}.pt", Lenet, 5, 0.02)
    if dataset == "fashion":
        return Subject(network, seed, split, lambda: trained(network, seed))
    classes, size = int(split.labels.max()) + 1, split.images.shape[-1]
    if weights is None and dataset == "cub200":
        raise SystemExit("cub200 needs --weights: a state dict of papers.subjects.Vgg16, tuned on it from ImageNet's")
    path = weights or RESULTS / f"vgg16-{dataset}-{settings.width:g}-{seed}.pt"
    return _kept(
        "vgg16", seed, split, path, lambda: Vgg16(classes, size, settings.width), settings.epochs, 0.05, bfloat16=True
    )


def _kept(
    name: str, seed: int, split: Split, path: Path, fresh: Callable[[], nn.Module], epochs: float, rate: float,
    bfloat16: bool = False,
) -> Subject:  # fmt: skip
    """Return a network whose weights lie in a file, or are trained and written there."""
    if not path.exists():
        torch.manual_seed(seed)
        model = fresh().to(memory_format=torch.channels_last)
        fully_tuned(model, split, epochs, seed, rate, bfloat16=bfloat16)
        path.parent.mkdir(exist_ok=True)
        torch.save(model.state_dict(), path)
    state = torch.load(path, weights_only=True)

    def make() -> nn.Module:
        made = fresh()
        made.load_state_dict(state)
        return made.eval()

    return Subject(name, seed, split, make)


def tuned_shortly(model: nn.Module, images: list[tuple[Tensor, Tensor]], rate: float = 1e-3, steps: int = 60) -> None:
    """Ten epochs on the few images, or so many steps; the best state by a held-out fifth is kept: early stopping."""
    held = max(1, len(images) // 5)
    fitted, judged = images[:-held], images[-held:]
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9)
    best, state, worse = _loss(model, judged), copy.deepcopy(model.state_dict()), 0
    for _ in range(min(10, -(-steps // len(fitted)))):
        model.train()
        for x, y in fitted:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        found = _loss(model, judged)
        worse = 0 if found < best else worse + 1
        if found < best:
            best, state = found, copy.deepcopy(model.state_dict())
        if worse == 3:
            break
    model.load_state_dict(state)
    model.eval()


@torch.no_grad()
def _loss(model: nn.Module, images: list[tuple[Tensor, Tensor]]) -> float:
    model.eval()
    return float(torch.cat([F.cross_entropy(model(x), y, reduction="none") for x, y in images]).mean())


def fully_tuned(
    model: nn.Module, split: Split, epochs: float, seed: int, rate: float = 0.05, batch: int = 128,
    bfloat16: bool = False,
) -> None:  # fmt: skip
    """Train on the whole training set, shifted and mirrored, with a one-cycle rate."""
    draws = torch.Generator().manual_seed(seed)
    steps = int(epochs * (len(split.labels) // batch))
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9, nesterov=True, weight_decay=5e-4)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    model.train()
    for x, y in batches(split, steps, batch, draws):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            scores = model(x)
        F.cross_entropy(scores.float(), y).backward()
        optimizer.step()
        rates.step()
    model.eval()


def batches(split: Split, steps: int, batch: int, draws: torch.Generator):
    """So many batches of training images, shifted by up to two pixels and mirrored."""
    order = torch.cat([
        torch.randperm(len(split.labels), generator=draws) for _ in range(-(-steps * batch // len(split.labels)))
    ])  # fmt: skip
    for chosen in order[: steps * batch].view(steps, batch):
        images = shifted_and_flipped(split.images[chosen], draws)
        yield images.contiguous(memory_format=torch.channels_last), split.labels[chosen]
