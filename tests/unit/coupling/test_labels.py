"""Tensors of labels: expanded axes, axes along which labels differ, and pairs that meet."""

import pytest
import torch

from secateur.coupling.labels import (
    broadcast_labels,
    determines,
    entries_along,
    labelled_axes,
    squeeze_expanded,
    unique_pairs,
)

UNITS = torch.tensor([3, 4, 5])
EXPANDED = broadcast_labels(UNITS, 1, (2, 3, 4))


@pytest.mark.parametrize(
    ("keep", "shape"), [(None, (1, 3, 1)), (0, (2, 3, 1)), (2, (1, 3, 4)), (-1, (1, 3, 4)), (-3, (2, 3, 1))]
)
def test_expanded_axes_get_length_1_but_for_the_one_to_keep(keep: int | None, shape: tuple[int, ...]) -> None:
    squeezed = squeeze_expanded(EXPANDED, keep)
    assert squeezed.shape == shape
    assert torch.equal(squeezed.expand(2, 3, 4), EXPANDED)


def test_axes_in_memory_are_left_as_they_are() -> None:
    assert squeeze_expanded(EXPANDED.contiguous()).shape == (2, 3, 4)


def test_axes_along_which_labels_differ() -> None:
    assert labelled_axes(EXPANDED) == labelled_axes(EXPANDED.contiguous()) == {1}
    late = torch.zeros(2, 3, dtype=torch.long)
    late[1, 2] = 1  # nothing differs at the first index of the other axis
    assert labelled_axes(late) == {0, 1}
    assert labelled_axes(torch.zeros(2, 3, dtype=torch.long)) == set()


def test_entries_along_an_axis() -> None:
    assert entries_along(EXPANDED, 1).tolist() == entries_along(EXPANDED, -2).tolist() == [3, 4, 5]


def test_pairs_that_meet_are_listed_once() -> None:
    pairs = unique_pairs(UNITS[:, None], torch.tensor([[7, 7]]))
    assert sorted(map(tuple, pairs.T.tolist())) == [(3, 7), (4, 7), (5, 7)]
    assert determines(UNITS, torch.tensor([0, 0, 1]))
    assert not determines(UNITS[:, None], torch.tensor([[7, 8]]))
