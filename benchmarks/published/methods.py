"""The methods of the comparison, each from a dense network and unlabelled images to a smaller network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

import secateur as sc
from published.camvid import mean_iou
from published.peers import (
    cut_inner,
    grail,
    kept_at_random,
    kept_by_norm,
    share_for,
    with_batch_norm_anew,
)
from published.torch_pruning_peers import distilled, torch_pruning_cut


@dataclass(frozen=True)
class PruningTask:
    """The input of a method.

    Args:
        dense: the dense network.
        batches: images without labels.
        keep: the fraction of the MACs that is kept; for a bound, the change of the metric that is allowed.
        seed: the seed of the draw.
        labels: the labels of the images, for a bound on a metric that is checked with labels; None without any.
    """

    dense: nn.Module
    batches: Sequence[Tensor]
    keep: float
    seed: int
    labels: Sequence[Tensor] | None = None

    @property
    def image(self) -> Tensor:
        """One image."""
        return self.batches[0][0]


Method = Callable[[PruningTask], nn.Module]
BOUND = "bound"
TORCH_PRUNING = {"torch-pruning": "l2", "torch-pruning-bn": "bn", "torch-pruning-taylor": "taylor"}
"""The criterion of torch-pruning, by the name of the method."""
POINTS_OF_BOUND = {"ESPNet": -0.03}
"""The change of the metric that the smallest network within a bound may have, by network."""


def prune_by_default(task: PruningTask) -> nn.Module:
    """`prune` with its defaults, on all images."""
    return _prune_task(task)


def prune_and_tune(task: PruningTask) -> nn.Module:
    """`prune` with its defaults and the training of `tune`, on all images."""
    return _prune_task(task, repair=["refit", "adapt", "tune"])


def prune_to_any_sizes(task: PruningTask) -> nn.Module:
    """`prune` without a preference for sizes that fill the kernels of this processor."""
    return _prune_task(task, target="any")


def prune_uniformly(task: PruningTask) -> nn.Module:
    """`prune` with the same fraction of every group."""
    return _prune_task(task, allocation="uniform")


def random_units(task: PruningTask) -> nn.Module:
    """The same fraction of every group at random, with the repair of `prune`."""
    return _prune_task(task, by="random", allocation="uniform", seed=task.seed)


def _prune_task(task: PruningTask, **options: object) -> nn.Module:
    budget = {"macs": task.keep}
    return sc.prune(task.dense, list(task.batches), budget, holdout=0, progress=False, **options).model


def torch_pruning(task: PruningTask, criterion: str) -> nn.Module:
    """A criterion of torch-pruning on inner convolutions, with batch norm re-estimated on the images."""
    share = share_for(task.dense, task.keep, task.image)
    return with_batch_norm_anew(torch_pruning_cut(task.dense, share, task.batches, criterion), task.batches)


def torch_pruning_distilled(task: PruningTask, criterion: str) -> nn.Module:
    """The same, trained towards the dense network's outputs."""
    return distilled(torch_pruning(task, criterion), task.dense, task.batches, task.seed)


def grail_by_norm(task: PruningTask) -> nn.Module:
    """The compensation of GRAIL over L2 norms on inner convolutions."""
    return grail(task.dense, kept_by_norm(task.dense, share_for(task.dense, task.keep, task.image)), task.batches)


def grail_at_random(task: PruningTask) -> nn.Module:
    """The compensation of GRAIL over random inner channels."""
    share = share_for(task.dense, task.keep, task.image)
    return grail(task.dense, kept_at_random(task.dense, share, task.seed), task.batches)


def norm_alone(task: PruningTask) -> nn.Module:
    """L2 norms on inner convolutions, with batch norm re-estimated."""
    kept = kept_by_norm(task.dense, share_for(task.dense, task.keep, task.image))
    return with_batch_norm_anew(cut_inner(task.dense, kept), task.batches)


def within_bound(task: PruningTask) -> nn.Module:
    """The smallest network within a bound on the mean intersection over union, checked with the images' labels."""
    assert task.labels is not None
    labelled = list(zip(task.batches, task.labels, strict=True))
    bound = {"metric": task.keep}
    return sc.prune(task.dense, labelled, bound, metric=mean_iou, holdout=0, progress=False).model


def norm_of_every_group(task: PruningTask) -> nn.Module:
    """L2 norms, the same fraction of every group, with batch norm re-estimated."""
    network = sc.trace(task.dense, task.batches[0][:2])
    scores = sc.score(network, list(task.batches), by="l2", progress=False)
    plan = sc.plan(network, scores, {"macs": task.keep}, allocation="uniform")
    return with_batch_norm_anew(sc.cut(task.dense, plan), task.batches)


METHODS: Mapping[str, Method] = {
    "default": prune_by_default,
    "tune": prune_and_tune,
    "any-sizes": prune_to_any_sizes,
    "uniform": prune_uniformly,
    "random": random_units,
    **{name: partial(torch_pruning, criterion=criterion) for name, criterion in TORCH_PRUNING.items()},
    **{
        f"{name}-distilled": partial(torch_pruning_distilled, criterion=criterion)
        for name, criterion in TORCH_PRUNING.items()
    },
    "grail-l2": grail_by_norm,
    "grail-l2-bn": lambda task: with_batch_norm_anew(grail_by_norm(task), task.batches),
    "grail-random": grail_at_random,
    "grail-random-bn": lambda task: with_batch_norm_anew(grail_at_random(task), task.batches),
    "l2": norm_alone,
    "l2-groups": norm_of_every_group,
    BOUND: within_bound,
}
EVERY_NETWORK = ("default", "any-sizes", "tune", "uniform", "random", "l2-groups")
"""The methods that cut any network; the others know the blocks of CIFAR ResNets."""
LABELS: Mapping[str, str] = {
    "default": "Secateur, default",
    "tune": 'Secateur, `repair=["refit", "adapt", "tune"]`: with gradient steps',
    "any-sizes": 'Secateur, `target="any"`: sizes need not fill kernels',
    "uniform": 'Secateur, `allocation="uniform"`',
    "random": "random units, same fraction of every group, Secateur's repair",
    "torch-pruning": "torch-pruning L2, inner convolutions, batch norm re-estimated",
    "torch-pruning-bn": "torch-pruning BN-scale, inner convolutions, batch norm re-estimated",
    "torch-pruning-taylor": "torch-pruning Taylor, inner convolutions, batch norm re-estimated",
    "torch-pruning-distilled": "torch-pruning L2, inner convolutions, 300 steps of distillation",
    "torch-pruning-bn-distilled": "torch-pruning BN-scale, inner convolutions, 300 steps of distillation",
    "torch-pruning-taylor-distilled": "torch-pruning Taylor, inner convolutions, 300 steps of distillation",
    "grail-l2": "GRAIL's compensation (written by us) over L2, inner convolutions",
    "grail-l2-bn": "GRAIL's compensation (written by us) over L2, inner convolutions, batch norm re-estimated",
    "grail-random": "GRAIL's compensation (written by us) over random, inner convolutions",
    "grail-random-bn": "GRAIL's compensation (written by us) over random, inner convolutions, batch norm re-estimated",
    "l2": "L2, inner convolutions, batch norm re-estimated",
    BOUND: "Secateur, the smallest within a bound on `metric=`",
    "l2-groups": "L2, same fraction of every group, cut by Secateur, batch norm re-estimated",
}
