"""torch-pruning with its rankings, each as it is, with batch norm re-estimated, and with distillation.

The same share goes from every layer (LAMP: one ranking of all), as large as the budget in MACs needs.
"""

import copy
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn
from torch.nn import functional as F

from lowdata.ours import BUDGETS, FEWER, Row
from lowdata.subjects import Augment, Subject

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
STEPS = 300


def peers(subject: Subject, rankings: tuple[str, ...] = tuple(RANKINGS)) -> Iterator[Row]:
    images, labels = subject.images[:256], subject.labels[:256]
    shares: dict[float, float] = {}
    for name in rankings:
        for keep in BUDGETS if name in DISTILLED else FEWER:
            start = time.perf_counter()
            shared = None if RANKINGS[name][1] else shares.get(keep)  # equal shares leave equal MACs
            small, macs, share = cut(subject, name, keep, images, labels, shared)
            if not RANKINGS[name][1]:
                shares.setdefault(keep, share)
            given = {"network": subject.name, "seed": subject.seed, "method": f"torch-pruning {name}", "keep": keep,
                     "macs": macs, "examples": 256}  # fmt: skip

            def row(repair: str, model: nn.Module, begun: float = start, given: Row = given) -> Row:
                return {**given, "repair": repair, "accuracy": subject.accuracy(model),
                        "seconds": time.perf_counter() - begun}  # fmt: skip

            yield row("none", small)
            yield row("batch norm", batchnorm_anew(copy.deepcopy(small), images))
            if name in DISTILLED and keep in FEWER:
                yield row("300 steps", distilled(batchnorm_anew(small, images), subject.model(), images))


def cut(
    subject: Subject, name: str, keep: float, images: Tensor, labels: Tensor, known: float | None
) -> tuple[nn.Module, float, float]:
    """The network with the smallest share gone that meets the budget, by bisection if it is not known; its part of the
    MACs, and the share."""
    low, high, best = 0.0, 0.98, None
    dense = tp.utils.count_ops_and_params(subject.model(), images[:1])[0]
    for _ in range(7 if known is None else 1):
        share = (low + high) / 2 if known is None else known
        small = _pruned(subject, name, share, images, labels)
        left = tp.utils.count_ops_and_params(small, images[:1])[0] / dense
        if left <= keep:
            best, high = (small, left, share), share
        else:
            low = share
    assert best is not None
    return best


def _pruned(subject: Subject, name: str, share: float, images: Tensor, labels: Tensor) -> nn.Module:
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
    """Batch norm's statistics taken anew from the images, all at once."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    model.train()
    with torch.no_grad():
        model(images)
    return model.eval()


def distilled(small: nn.Module, dense: nn.Module, images: Tensor) -> nn.Module:
    """300 steps towards the dense network's outputs: Adam, one cycle up to 1e-3, temperature 2, flips and shifts."""
    draws, augment = torch.Generator().manual_seed(0), Augment()
    optimizer = torch.optim.Adam(small.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=STEPS)
    small.train()
    for _ in range(STEPS):
        batch = augment(images[torch.randint(len(images), (64,), generator=draws)])
        with torch.no_grad():
            wanted = (dense(batch) / 2).log_softmax(1)
        loss = F.kl_div((small(batch) / 2).log_softmax(1), wanted, log_target=True, reduction="batchmean") * 4
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return small.eval()
