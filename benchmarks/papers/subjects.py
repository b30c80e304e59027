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
from papers.vgg_and_lenet import Lenet, Vgg16

RESULTS = results_folder("reproductions")


@dataclass(frozen=True)
class PaperSubject:
    """A trained network with its data.

    Args:
        name: the name of the network.
        seed: the seed of its training and of the calibration images.
        split: the data.
        make: returns the network.
    """

    name: str
    seed: int
    split: Split
    make: Callable[[], nn.Module]

    def model(self) -> nn.Module:
        """Return a new instance of the network."""
        return self.make().to(memory_format=torch.channels_last)

    def images(self, count: int) -> list[tuple[Tensor, Tensor]]:
        """Return labelled training images in batches of 50, others for each seed."""
        draws = torch.Generator().manual_seed(1000 + self.seed)
        chosen = torch.randperm(len(self.split.labels), generator=draws)[:count]
        return list(zip(self.split.images[chosen].split(50), self.split.labels[chosen].split(50), strict=True))

    @torch.no_grad()
    def accuracy(self, model: nn.Module, limit: int = 10_000) -> float:
        """Return the accuracy on the first test images."""
        model.eval()
        predicted = torch.cat([model(batch) for batch in self.split.test_images[:limit].split(500)]).argmax(1)
        return float((predicted == self.split.test_labels[:limit]).double().mean())


def load_paper_subject(settings: Settings, seed: int, network: str = "vgg") -> PaperSubject:
    """Return the network of an experiment: one of the benchmarks on Fashion-MNIST, VGG-16 on other data.

    Args:
        settings: the settings of the experiment. `weights` is a state dict of `Vgg16`, as `torch.save` writes it.
            Without it, a network for CIFAR-10 is trained for `epochs` epochs and kept beside the results.
        seed: the number of the trained network and of the calibration images.
        network: on Fashion-MNIST; "lenet" is trained on the spot, in two minutes, and kept beside the results.
    """
    dataset, weights = settings.dataset, settings.weights
    split = DATASETS[dataset](settings.data)
    if dataset == "fashion" and network == "lenet":
        return _stored_subject(network, seed, split, RESULTS / f"lenet-{seed}.pt", Lenet, 5, 0.02)
    if dataset == "fashion":
        return PaperSubject(network, seed, split, lambda: trained(network, seed))
    classes, size = int(split.labels.max()) + 1, split.images.shape[-1]
    if weights is None and dataset == "cub200":
        raise SystemExit(
            "cub200 needs --weights: a state dict of papers.vgg_and_lenet.Vgg16, tuned on it from ImageNet's"
        )
    path = weights or RESULTS / f"vgg16-{dataset}-{settings.width:g}-{seed}.pt"
    has_bfloat16 = torch.backends.cpu.get_cpu_capability().startswith("AVX512")  # with AVX2 it is eight times slower
    return _stored_subject(
        "vgg16", seed, split, path, lambda: Vgg16(classes, size, settings.width), settings.epochs, 0.05, has_bfloat16
    )


def _stored_subject(
    name: str, seed: int, split: Split, path: Path, fresh: Callable[[], nn.Module], epochs: float, rate: float,
    bfloat16: bool = False,
) -> PaperSubject:  # fmt: skip
    """Return a network whose weights lie in a file, or are trained and written there."""
    if not path.exists():
        torch.manual_seed(seed)
        model = fresh().to(memory_format=torch.channels_last)
        tune_fully(model, split, epochs, seed, rate, bfloat16=bfloat16)
        path.parent.mkdir(exist_ok=True)
        torch.save(model.state_dict(), path)
    state = torch.load(path, weights_only=True)

    def make() -> nn.Module:
        network = fresh()
        network.load_state_dict(state)
        return network.eval()

    return PaperSubject(name, seed, split, make)


def tune_shortly(model: nn.Module, images: list[tuple[Tensor, Tensor]], rate: float = 1e-3, steps: int = 60) -> None:
    """Train for ten epochs, or fewer where these are more than `steps`, with early stopping by a fifth of the images.

    Args:
        model: the network, which gets the best state.
        images: batches of labelled images.
        rate: the learning rate.
        steps: the limit of steps.
    """
    holdout = max(1, len(images) // 5)
    fitted, judged = images[:-holdout], images[-holdout:]
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9)
    best, state, worse = _mean_loss(model, judged), copy.deepcopy(model.state_dict()), 0
    for _ in range(min(10, -(-steps // len(fitted)))):
        model.train()
        for x, y in fitted:
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
        loss = _mean_loss(model, judged)
        worse = 0 if loss < best else worse + 1
        if loss < best:
            best, state = loss, copy.deepcopy(model.state_dict())
        if worse == 3:
            break
    model.load_state_dict(state)
    model.eval()


@torch.no_grad()
def _mean_loss(model: nn.Module, images: list[tuple[Tensor, Tensor]]) -> float:
    model.eval()
    return float(torch.cat([F.cross_entropy(model(x), y, reduction="none") for x, y in images]).mean())


def tune_fully(
    model: nn.Module, split: Split, epochs: float, seed: int, rate: float = 0.05, batch: int = 128,
    bfloat16: bool = False,
) -> None:  # fmt: skip
    """Train on the whole training set, shifted and mirrored, with a one-cycle rate."""
    draws = torch.Generator().manual_seed(seed)
    steps = int(epochs * (len(split.labels) // batch))
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9, nesterov=True, weight_decay=5e-4)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    model.train()
    for x, y in training_batches(split, steps, batch, draws):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            scores = model(x)
        F.cross_entropy(scores.float(), y).backward()
        optimizer.step()
        rates.step()
    model.eval()


def training_batches(split: Split, steps: int, batch: int, draws: torch.Generator):
    """Yield batches of training images, shifted by up to two pixels and mirrored."""
    order = torch.cat([
        torch.randperm(len(split.labels), generator=draws) for _ in range(-(-steps * batch // len(split.labels)))
    ])  # fmt: skip
    for chosen in order[: steps * batch].view(steps, batch):
        images = shifted_and_flipped(split.images[chosen], draws)
        yield images.contiguous(memory_format=torch.channels_last), split.labels[chosen]
