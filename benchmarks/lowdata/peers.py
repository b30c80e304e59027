"""torch-pruning with its rankings, each as it is, with batch norm re-estimated, and with distillation.

The same share goes from every layer (LAMP: one ranking of all), as large as the budget in MACs needs.
"""

import copy
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch_pruning as tp
from distillation import Distillation
from torch import Tensor, nn
from torch.nn import functional as F

from lowdata.ours import BUDGETS, FEWER, Row
from lowdata.subjects import Augment, FashionSubject

RANKINGS: dict[str, tuple[Callable[[], Any], bool]] = {
    "L2": (lambda: tp.importance.GroupMagnitudeImportance(p=2), False),
    "LAMP, global": (lambda: tp.importance.LAMPImportance(p=2), True),
    "Taylor": (lambda: tp.importance.GroupTaylorImportance(), False),
    "BN scale": (lambda: tp.importance.BNScaleImportance(), False),
    "Hessian": (lambda: tp.importance.GroupHessianImportance(), False),
    "random": (lambda: tp.importance.RandomImportance(), False),
}
NEED_GRADIENTS = ("Taylor", "Hessian")
DISTILLED = ("L2",)
DISTILLATION = Distillation(temperature=2)


def peer_rows(subject: FashionSubject, rankings: tuple[str, ...] = tuple(RANKINGS)) -> Iterator[Row]:
    """Yield the rows of torch-pruning with each of its rankings."""
    images, labels = subject.images[:256], subject.labels[:256]
    shares: dict[float, float] = {}
    for name in rankings:
        for keep in BUDGETS if name in DISTILLED else FEWER:
            start = time.perf_counter()
            known_share = None if RANKINGS[name][1] else shares.get(keep)  # equal shares leave equal MACs
            small, macs, share = cut_to_budget(subject, name, keep, images, labels, known_share)
            if not RANKINGS[name][1]:
                shares.setdefault(keep, share)
            fields = {"network": subject.name, "seed": subject.seed, "method": f"torch-pruning {name}", "keep": keep,
                     "macs": macs, "examples": 256}  # fmt: skip

            def row(repair: str, model: nn.Module, started: float = start, fields: Row = fields) -> Row:
                return {**fields, "repair": repair, "accuracy": subject.accuracy(model),
                        "seconds": time.perf_counter() - started}  # fmt: skip

            yield row("none", small)
            yield row("batch norm", batchnorm_anew(copy.deepcopy(small), images))
            if name in DISTILLED and keep in FEWER:
                draws, student = torch.Generator().manual_seed(0), batchnorm_anew(small, images)
                yield row("300 steps", DISTILLATION.train(student, subject.model(), images, Augment(), draws))


def cut_to_budget(
    subject: FashionSubject, name: str, keep: float, images: Tensor, labels: Tensor, known_share: float | None
) -> tuple[nn.Module, float, float]:
    """Cut the smallest share of units that meets the budget, found by bisection.

    Args:
        subject: the network.
        name: the ranking.
        keep: the budget, a fraction of the MACs.
        images: to rank with.
        labels: of the images, for rankings that need gradients.
        known_share: the share, where it is known.

    Returns:
        The small network, its fraction of the MACs, and the share of units removed.
    """
    low, high, best = 0.0, 0.98, None
    dense = tp.utils.count_ops_and_params(subject.model(), images[:1])[0]
    for _ in range(7 if known_share is None else 1):
        share = (low + high) / 2 if known_share is None else known_share
        small = _pruned_by_peer(subject, name, share, images, labels)
        macs = tp.utils.count_ops_and_params(small, images[:1])[0] / dense
        if macs <= keep:
            best, high = (small, macs, share), share
        else:
            low = share
    assert best is not None
    return best


def _pruned_by_peer(subject: FashionSubject, name: str, share: float, images: Tensor, labels: Tensor) -> nn.Module:
    torch.manual_seed(subject.seed)
    model = subject.model()
    make, is_global = RANKINGS[name]
    importance = make()
    pruner = tp.pruner.BasePruner(
        model, images[:1], importance, global_pruning=is_global, pruning_ratio=share, ignored_layers=[model.fc]
    )
    if name in NEED_GRADIENTS:
        losses = F.cross_entropy(model(images), labels, reduction="none")
        if name == "Hessian":
            importance.zero_grad()
            for loss in losses:
                model.zero_grad()
                loss.backward(retain_graph=True)
                importance.accumulate_grad(model)
        else:
            losses.mean().backward()
    pruner.step()
    model.zero_grad()
    return model


def batchnorm_anew(model: nn.Module, images: Tensor) -> nn.Module:
    """Estimate the statistics of batch norm again from the images, in one batch."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    model.train()
    with torch.no_grad():
        model(images)
    return model.eval()
