"""Data that are produced item by item: data sets, loaders and generators, of any length."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

import secateur as sc
from secateur.data.conversion import as_batches
from secateur.data.reading import BYTES_BETWEEN_CHECKS, MOST_BATCHES, read_items

LABELLED = [(torch.full((3,), float(number)), number % 2) for number in range(40)]


class WithoutLength(Dataset[Any]):
    """A data set that ends by an IndexError."""

    def __getitem__(self, number: int) -> Any:
        return LABELLED[number]


class OfAnotherLibrary:
    """A data set that is no `Dataset` of torch."""

    def __len__(self) -> int:
        return len(LABELLED)

    def __getitem__(self, number: int) -> Any:
        return LABELLED[number]


class Endless(IterableDataset[Tensor]):
    """A stream of examples."""

    def __iter__(self) -> Iterator[Tensor]:
        yield from (torch.full((3,), float(number)) for number in count())


@pytest.mark.parametrize("data", [WithoutLength(), OfAnotherLibrary(), LABELLED], ids=["no length", "another", "list"])
def test_examples_by_number_are_read_to_their_end(data: Any) -> None:
    batches = as_batches(data)
    assert torch.equal(torch.cat([batch.args[0][:, 0] for batch in batches]), torch.arange(40.0))
    assert torch.cat([batch.target for batch in batches]).tolist() == [0, 1] * 20


def test_an_error_of_a_data_set_within_its_length_is_its_own() -> None:
    class Broken(OfAnotherLibrary):
        def __len__(self) -> int:
            return 41

    with pytest.raises(IndexError, match="list index out of range"):
        as_batches(Broken())


def test_data_without_an_end_are_refused() -> None:
    with pytest.raises(sc.SecateurError, match="gave more than 50 items"):
        read_items(DataLoader(Endless(), batch_size=2), None, most_items=50)
    assert len(read_items(iter(range(50)), None, most_items=50)) == 50
    assert len(read_items(range(60), 60, most_items=50)) == 60


def test_many_single_examples_of_unknown_number_are_read() -> None:
    row = (torch.ones(1), 1)
    assert len(read_items(iter([row] * (MOST_BATCHES + 1)), None)) == MOST_BATCHES + 1


def test_arrays_fill_the_memory_as_tensors_do() -> None:
    free = iter([10_000_000_000, 900_000_000])
    block = np.empty(BYTES_BETWEEN_CHECKS + 4, dtype=np.uint8)
    with pytest.raises(sc.SecateurError, match=r"1 of 9 items of data filled"):
        read_items([block] * 9, 9, free_bytes=lambda: next(free))


def test_data_that_fill_the_memory_are_refused() -> None:
    free = iter([10_000_000_000, 4_000_000_000, 900_000_000])
    block = torch.empty(BYTES_BETWEEN_CHECKS + 4, dtype=torch.uint8)
    with pytest.raises(sc.SecateurError, match=r"2 of 9 items of data filled 10.0 GB of memory; .*Subset"):
        read_items([block] * 9, 9, free_bytes=lambda: next(free))
    assert len(read_items([block] * 9, 9, free_bytes=lambda: None)) == 9


class Frame:
    """A table of numbers, as pandas and polars have it."""

    def __iter__(self) -> Iterator[str]:
        return iter("ab")

    def to_numpy(self) -> Any:
        return np.ones((4, 2))


class Image:
    """An image of PIL."""


@pytest.mark.parametrize(
    ("data", "advice"),
    [
        (Frame(), r"data is a Frame; .*torch.tensor\(data.to_numpy\(\)"),
        ([Image(), Image()], "no tensors, but Image; .*to_tensor"),
        ([(Image(), number % 2) for number in range(8)], "no tensors, but Image; .*to_tensor"),
        ("train.pt", "read the file first"),
        ((1, 3, 32, 32), "numbers alone are a shape"),
        (None, "data is None; give an iterable"),
    ],
)
def test_what_is_no_data_is_answered_with_what_to_give(data: Any, advice: str) -> None:
    with pytest.raises(sc.SecateurError, match=advice):
        as_batches(data)


def test_features_with_a_graph_are_taken_without_it() -> None:
    backbone, head = nn.Linear(3, 6), nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    features = backbone(torch.randn(40, 3))
    result = sc.prune(head, features, {"macs": 0.5}, by="taylor", repair=None, allocation="uniform")
    assert result.plan.kept["0"].numel() == 4
    assert backbone.weight.grad is None and features.requires_grad


def test_arrays_of_any_bytes_and_strides_are_taken() -> None:
    numbers = np.arange(12, dtype=np.float32).reshape(3, 4)
    for array in (numbers.astype(">f4"), numbers[::-1, ::-1], np.asfortranarray(numbers), numbers.astype(">f8")):
        (batch,) = as_batches(array)
        assert batch.args[0].dtype == torch.float32 and batch.args[0].tolist() == array.tolist()


def test_single_examples_with_names_of_classes_are_batched() -> None:
    batches = as_batches([(torch.full((3,), float(number)), "cat") for number in range(5)])
    assert [batch.size for batch in batches] == [5] and batches[0].target == ["cat"] * 5
