"""The networks and examples that are scored, and games of single groups as every estimator and peer sees them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from networks.trained import trained
from published.cifar import cifar_subject
from torch import Tensor, nn

import secateur as sc
from secateur import demo
from secateur.data.conversion import as_batches
from secateur.importance.context import CriterionContext, split_microbatches
from secateur.importance.shapley.config import EvaluationConfig
from secateur.importance.shapley.dense_run import DenseRun
from secateur.importance.shapley.game import Game
from secateur.importance.shapley.game_sequence import games_in_order
from secateur.importance.shuffled_microbatches import shuffled_microbatches
from secateur.utils.rng import generator_for

SUBJECTS = {"vgg": "vgg", "demo": "residual"}
MEMORY = 1 << 31


@dataclass(frozen=True)
class GameSubject:
    """A network with labelled images that it was not trained on; absent units are zero.

    Args:
        name: the name of the network.
        model: the network.
        context: the traced network and the examples.
        numbers: the numbers of the examples of each microbatch.
    """

    name: str
    model: nn.Module
    context: CriterionContext
    numbers: list[Tensor]

    @property
    def examples(self) -> int:
        """The number of examples."""
        return sum(len(numbers) for numbers in self.numbers)

    def only(self, names: Sequence[str]) -> "GameSubject":
        """Return the same with some of the groups."""
        groups = [group for group in self.context.groups if group.name in names]
        return replace(self, context=replace(self.context, groups=groups))

    def games(self) -> Iterator[Game]:
        """The game of each group."""
        yield from games_in_order(self.context, EvaluationConfig(memory=MEMORY), DenseRun(self.context, MEMORY))


def demo_subject(name: str, examples: int = 256) -> GameSubject:
    """Return a network with the first of the demo's test images."""
    images, labels = (torch.cat(batches)[:examples] for batches in zip(*demo.test(), strict=True))
    return _subject_of_images(name, trained(SUBJECTS[name]), images, labels)


def cifar_subject_of_games(folder: Path, name: str, examples: int = 256) -> GameSubject:
    """Return ResNet-20 or ResNet-56 with random test images of CIFAR-10, and three of its groups."""
    cifar = cifar_subject(folder, int(name[-2:]))
    chosen = torch.randperm(len(cifar.test_images), generator=torch.Generator().manual_seed(0))[:examples]
    subject = _subject_of_images(name, cifar.dense, cifar.test_images[chosen], cifar.test_labels[chosen])
    return subject.only(CIFAR_GROUPS[name])


CIFAR_GROUPS = {
    "ResNet-20": ("layer2.1.conv1", "layer3.1.conv1", "layer3.2.conv1"),
    "ResNet-56": ("layer3.5.conv1", "layer3.7.conv1", "layer3.8.conv1"),
}


def _subject_of_images(name: str, model: nn.Module, images: Tensor, labels: Tensor) -> GameSubject:
    network = sc.trace(model, images[:2])
    shuffled = shuffled_microbatches(
        split_microbatches(as_batches((images, labels)), torch.device("cpu")), generator_for(0, "cells")
    )
    microbatches, numbers = [microbatch for microbatch, _ in shuffled], [index for _, index in shuffled]
    return GameSubject(name, model, CriterionContext(network, network.groups, microbatches, None, {}, 0), numbers)


def relative_error(values: Tensor, truth: Tensor) -> float:
    """Return the squared error as a part of the true values' squares."""
    return float((values - truth).square().sum() / truth.square().sum())
