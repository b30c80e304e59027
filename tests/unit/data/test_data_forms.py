"""Data in every form that people have it are the same batches, and targets of any kind follow their examples."""

from collections import UserDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from expected_warnings import untrained_networks
from linear_stack import linear_stack
from secateur.data.batch import concat_batches, on_device
from secateur.data.conversion import as_batches
from secateur.data.forms import ExampleList

pytestmark = untrained_networks

X = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
Y = torch.arange(40) % 3


class Rows(torch.utils.data.Dataset[Any]):
    """Single examples, in any form."""

    def __init__(self, row: Callable[[int], Any]) -> None:
        self.row = row

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, number: int) -> Any:
        return self.row(number)


class Table:
    """A data set like those of the library `datasets`: rows, some of whose columns are text."""

    column_names, features = ("text", "x", "label"), {"text": "string"}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter({"text": "words", "x": X[n].tolist(), "label": int(Y[n])} for n in range(len(X)))


FORMS: dict[str, Callable[[], Any]] = {
    "tensors": lambda: (X, Y),
    "arrays": lambda: (X.numpy(), Y.numpy()),
    "arrays in double precision": lambda: (X.double().numpy(), Y.numpy()),
    "lists of numbers": lambda: [(X.tolist(), Y.tolist())],
    "lists of lists": lambda: [[X.tolist(), Y.tolist()]],
    "batches of arrays": lambda: [(X[:30].numpy(), Y[:30].numpy()), (X[30:].numpy(), Y[30:].numpy())],
    "labels as tensors without axes": lambda: [(X, list(Y))],
    "labels of 32 bits": lambda: [(X, Y.int())],
    "labels of 8 bits": lambda: [(X, Y.to(torch.uint8))],
    "pairs of one example and its class": lambda: [(X[n], int(Y[n])) for n in range(40)],
    "pairs of arrays": lambda: [(X[n].numpy(), Y[n].numpy()) for n in range(40)],
    "a data set": lambda: torch.utils.data.TensorDataset(X, Y),
    "a data set of arrays": lambda: Rows(lambda n: (X[n].double().numpy(), int(Y[n]))),
    "a loader": lambda: torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=16),
}
KEYWORDS: dict[str, Callable[[], Any]] = {
    "a dict": lambda: {"x": X, "labels": Y},
    "a mapping that is no dict": lambda: UserDict({"x": X, "labels": Y}),
    "columns": lambda: {"x": X.tolist(), "labels": Y.tolist()},
    "rows": lambda: [{"x": X[n].tolist(), "label": int(Y[n])} for n in range(40)],
    "rows of arrays": lambda: [{"x": X[n].numpy(), "labels": Y[n].numpy()} for n in range(40)],
    "a data set of dicts": lambda: Rows(lambda n: {"x": X[n], "label": Y[n]}),
    "a table": Table,
}


@pytest.mark.filterwarnings("ignore:the columns text")
@pytest.mark.parametrize("form", [*FORMS, *KEYWORDS])
def test_all_forms_are_the_same_batches(form: str) -> None:
    batches = as_batches({**FORMS, **KEYWORDS}[form]())
    whole = concat_batches(batches)
    inputs = whole.args[0] if form in FORMS else whole.kwargs["x"]
    assert len(whole.args) + len(whole.kwargs) == 1
    assert torch.equal(inputs, X) and inputs.dtype == torch.float32
    assert torch.equal(whole.target.long(), Y) and not whole.target.is_floating_point()


@pytest.fixture(scope="module")
def network() -> sc.Network:
    return sc.trace(linear_stack(6, 12, 3), X[:2])


@pytest.mark.parametrize("form", ["arrays in double precision", "labels of 8 bits", "pairs of arrays", "a data set"])
def test_all_forms_give_the_same_scores(form: str, network: sc.Network) -> None:
    expected = sc.score(network, [(X, Y)], by="taylor", progress=False)["0"].values
    scores = sc.score(network, FORMS[form](), by="taylor", progress=False)["0"].values
    assert torch.allclose(scores, expected, rtol=1e-5)


def test_arrays_take_the_type_of_the_model() -> None:
    result = sc.prune(linear_stack(6, 12, 3).double(), X.double().numpy(), {"units": 0.5}, by="l2", progress=False)
    assert result.model[0].weight.dtype == torch.float64


def test_rows_of_different_lengths_are_batched_by_length() -> None:
    rows = [{"input_ids": list(range(length)), "label": length % 2} for length in (3, 2, 3, 2, 3)]
    batches = as_batches(rows)
    assert [tuple(batch.kwargs["input_ids"].shape) for batch in batches] == [(3, 3), (2, 2)]
    assert [batch.target.tolist() for batch in batches] == [[1, 1, 1], [0, 0]]


def test_columns_of_text_are_left_out_and_named() -> None:
    with pytest.warns(UserWarning, match="the columns text hold text"):
        as_batches(Table())


def test_several_splits_are_refused() -> None:
    with pytest.raises(sc.SecateurError, match="train, test; give one of these"):
        as_batches({"train": Table(), "test": Table()})


def boxes(count: int) -> list[dict[str, Tensor]]:
    return [{"boxes": torch.full((n % 3, 4), float(n)), "label": torch.tensor(n)} for n in range(count)]


TARGETS: dict[str, Any] = {
    "a list of dicts": boxes(40),
    "a tuple of dicts": tuple(boxes(40)),
    "strings": [f"name {n}" for n in range(40)],
    "a dict of heads": {"first": Y, "second": X},
    "several heads": [Y, X],
    "several heads, one without targets": [Y, None],
    "names in a dict": {"label": Y, "name": [str(n) for n in range(40)]},
}


@pytest.mark.parametrize("kind", TARGETS)
def test_targets_of_any_kind_follow_their_examples(kind: str) -> None:
    batch = on_device(as_batches([(X, TARGETS[kind])])[0], torch.device("cpu"))
    order = torch.tensor([7, 3, 3])
    some = batch.take(order)
    assert torch.equal(some.args[0], X[order])
    target = some.target
    if isinstance(target, ExampleList):
        assert [str(entry) for entry in target] == [str(TARGETS[kind][n]) for n in order.tolist()]
    elif isinstance(target, dict):
        assert all(len(values) == 3 for values in target.values())
        assert "name" not in target or list(target["name"]) == ["7", "3", "3"]
    else:
        assert torch.equal(target[0], Y[order])
    twice = concat_batches([batch, some]).target
    assert len(twice) == 43 if isinstance(twice, ExampleList) else True


def test_lists_of_targets_are_read_alike_in_all_batches() -> None:
    ambiguous = [torch.zeros(2, 4), torch.zeros(2, 4)]  # two heads, or two boxes in each of two images
    batches = as_batches([(X[:2], ambiguous), (X[:2], [torch.zeros(1, 4), torch.zeros(3, 4)])])
    assert all(isinstance(batch.target, ExampleList) for batch in batches)
    assert not isinstance(as_batches([(X[:2], ambiguous)])[0].target, ExampleList)


def of_dicts(output: Tensor, target: Any) -> Tensor:
    return F.cross_entropy(output, torch.stack([entry["label"] for entry in target]), reduction="none")


@pytest.mark.parametrize("by", ["shapley", "leave-one-out", "taylor", "taylor-gates", "integrated-gradients"])
def test_scores_against_lists_of_dicts_are_those_against_their_tensors(by: str, network: sc.Network) -> None:
    data = [(X, [{"label": label, "boxes": torch.zeros(int(label), 4)} for label in Y])]
    few: dict[str, Any] = {"coalitions": 40} if by == "shapley" else {}
    scores = sc.score(network, data, by=by, loss=of_dicts, progress=False, **few)["0"].values
    expected = sc.score(network, [(X, Y)], by=by, progress=False, **few)["0"].values
    assert torch.allclose(scores, expected, rtol=1e-5, atol=1e-9)


def test_a_loss_of_lists_of_dicts_goes_all_the_way(tmp_path: Any, network: sc.Network) -> None:
    data = [(X[:33], [{"label": label} for label in Y[:33]]), (X[33:], [{"label": label} for label in Y[33:]])]
    options = {"holdout": 0, "progress": False, "coalitions": 20}
    result = sc.prune(linear_stack(6, 12, 3), data, {"loss": 5.0}, by="shapley", loss=of_dicts, **options)
    plain = F.cross_entropy(linear_stack(6, 12, 3)(X), Y)
    assert result.report.dense.loss == pytest.approx(float(plain), rel=1e-5)
    comparison = sc.compare(
        linear_stack(6, 12, 3), data, by=("taylor", "l2"), keep={"units": 0.5}, loss=of_dicts, progress=False
    )
    assert not comparison.refused
    path = tmp_path / "scores.safetensors"
    sc.score(network, data, loss=of_dicts, coalitions=20, checkpoint=path, progress=False)
    with pytest.raises(sc.SecateurError, match="other examples"):
        other = [(X, [{"label": label} for label in Y.flip(0)])]
        sc.score(network, other, loss=of_dicts, coalitions=20, checkpoint=path, progress=False)


def test_arrays_of_text_are_refused() -> None:
    with pytest.raises(sc.SecateurError, match="an array of <U1; give numbers"):
        as_batches(np.array([["a", "b"]]))


def test_data_made_under_inference_mode_can_be_differentiated() -> None:
    with torch.inference_mode():
        x = X.clone()
        network = sc.trace(model := small_network_outside(), x)
        scores = sc.score(network, [(x, Y)], by="taylor", progress=False)
        result = sc.prune(model, [(x, Y)], {"units": 0.5}, by="taylor", progress=False)
    assert torch.isfinite(scores["0"].values).all()
    assert not result.model[0].weight.is_inference()
    result.model(X).sum().backward()


def small_network_outside() -> nn.Sequential:
    with torch.inference_mode(False):
        return linear_stack(6, 12, 3)
