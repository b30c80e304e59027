"""Inputs whose axes are not as the network takes them: the error names the axis and the remedy."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import secateur as sc

BATCH_AXIS = r"the batch axis is missing.* x\.unsqueeze\(0\)"


def _classifier(channels: int = 3, *, norm: bool = True) -> nn.Module:
    layers = [nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8) if norm else nn.Identity(), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()


class Words(nn.Module):
    """A classifier of token sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.hidden, self.head = nn.Embedding(50, 8), nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, ids: Tensor) -> Tensor:
        _, _ = ids.shape
        return self.head(self.hidden(self.embedding(ids)).relu().mean(1))


AUTOENCODER = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 3, padding=1)).eval()
PERCEPTRON = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 5))
FAULTS: dict[str, tuple[nn.Module, Any, str]] = {
    "a list of images": (_classifier(), list(torch.randn(4, 3, 8, 8)), BATCH_AXIS),
    "of a network that takes single images up to its end": (
        _classifier(norm=False), list(torch.randn(4, 3, 8, 8)), BATCH_AXIS,
    ),
    "one image": (_classifier(), torch.randn(3, 8, 8), BATCH_AXIS),
    "an image that gives an image": (AUTOENCODER, list(torch.randn(4, 3, 8, 8)), BATCH_AXIS),
    "sequences of tokens": (Words(), [{"ids": torch.arange(7)} for _ in range(4)], BATCH_AXIS),
    "batches in batches": (Words(), [{"ids": torch.arange(28).view(4, 1, 7)}], r"squeeze\(1\); .* DataLoader adds it"),
    "no channels": (_classifier(1), torch.randn(16, 8, 8), r"axis of channels is missing; give x\.unsqueeze\(1\)"),
    "channels last": (_classifier(), np.random.rand(16, 8, 8, 3), r"channels are last; give x\.movedim\(-1, 1\)"),
    "images for a perceptron": (PERCEPTRON, torch.randn(16, 1, 8, 8), r"several axes; give x\.flatten\(1\)"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_the_fault_and_the_remedy_are_named(fault: str) -> None:
    model, data, advice = FAULTS[fault]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(sc.SecateurError, match="batch 0 of data: .*" + advice):
        sc.prune(model, data, {"macs": 0.5}, by="l2", repair=None)
    with pytest.raises(sc.SecateurError, match="the example: .*" + advice):
        sc.trace(model, data)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_networks_own_error_is_shown_as_well_and_alone_where_no_axis_helps() -> None:
    with pytest.raises(sc.SecateurError, match=r"Sequential refuses inputs .* expected 4D input"):
        sc.trace(_classifier(), torch.randn(3, 8, 8))
    with pytest.raises(sc.SecateurError, match=r"^the example: Sequential refuses inputs"):
        sc.trace(PERCEPTRON, torch.randn(16, 63))


@pytest.mark.parametrize("width", [3, 4])
def test_a_batch_size_that_the_code_fixes_is_no_missing_axis(width: int) -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.head = nn.Linear(5, 8), nn.Linear(8, width)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.hidden(x.reshape(4, 6, 5)).relu())

    assert sc.trace(Fixed(), torch.randn(4, 6, 5)).groups


class Sum(nn.Module):
    """A network of two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.head = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.head(self.hidden(first + second).relu())


class OfDict(Sum):
    """The same, whose inputs are a dict."""

    def forward(self, batch: dict[str, Tensor]) -> Tensor:  # type: ignore[override]
        return super().forward(batch["first"], batch["second"])


class Conditioned(Sum):
    """The same, with an input that has the name of a target."""

    def forward(self, first: Tensor, second: Tensor, label: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(first, second + label[:, None])


class OfList(Sum):
    """The same, whose inputs are a list."""

    def forward(self, inputs: list[Tensor]) -> Tensor:  # type: ignore[override]
        return super().forward(*inputs)


FIRST, SECOND, LABELS = torch.randn(16, 8), torch.randn(16, 8), torch.arange(16) % 4
PAIR = {"first": FIRST, "second": SECOND}
FORMS: dict[str, tuple[nn.Module, Any, str]] = {
    "two inputs as a pair": (Sum(), [(FIRST, SECOND)], r"read as \(inputs, target\); give .* \(\(a, b\),\)"),
    "a dict as one argument": (OfDict(), [PAIR], r"as one argument; give a tuple .* \(\(inputs,\),\)"),
    "a list as one argument": (OfList(), [([FIRST, SECOND], LABELS)], r"as one argument; .* \(\(inputs,\), target\)"),
    "columns that the model does not have": (
        Sum(), [{**PAIR, "index": LABELS, "weights": LABELS}], r"`forward` has no index, weights",
    ),
    "other names": (PERCEPTRON, [{"image": torch.randn(16, 64), "target": LABELS}], r"batch\['image'\], batch"),
    "inputs and targets in a list": (PERCEPTRON, [torch.randn(16, 64), LABELS], r"as a tuple, \(x, y\)"),
    "labels in the dict, in the singular": (
        Sum(), [{**PAIR, "label": LABELS}], r"has no label, and .* give labels as `labels`",
    ),
    "three items": (Sum(), [(FIRST, SECOND, LABELS)], r"such as \(\(a, b\), target\)"),
}  # fmt: skip
RIGHT: dict[str, tuple[nn.Module, Any]] = {
    "two inputs without targets": (Sum(), [((FIRST, SECOND),)]),
    "two inputs with targets": (Sum(), [((FIRST, SECOND), LABELS)]),
    "a dict without targets": (OfDict(), [((PAIR,),)]),
    "a dict with targets": (OfDict(), [((PAIR,), LABELS)]),
    "a list with targets": (OfList(), [(([FIRST, SECOND],), LABELS)]),
    "an input named label": (Conditioned(), [{**PAIR, "label": LABELS}]),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_form_that_the_model_takes_is_named(form: str) -> None:
    model, data, advice = FORMS[form]
    with pytest.raises(sc.SecateurError, match=advice):
        sc.prune(model, data, {"macs": 0.5}, by="l2", repair=None)


@pytest.mark.parametrize("form", RIGHT)
def test_the_forms_that_are_advised_are_pruned(form: str) -> None:
    model, data = RIGHT[form]
    result = sc.prune(model, data, {"macs": 0.5}, by="l2", repair=None, allocation="uniform")
    assert result.plan.cost.macs < result.plan.dense.macs
