"""Targets of a wrong shape or type: the error says which change makes them right."""

import pytest
import torch
from torch import Tensor

from secateur.errors import TargetError
from secateur.evaluation.targets import check_target

NUMBERS = torch.arange(6) % 3
TARGETS: dict[str, tuple[tuple[int, ...], Tensor, str]] = {
    "a column is missing": ((6, 1), NUMBERS.float(), r"target.unsqueeze\(1\) has that shape"),
    "a column too many": ((6,), NUMBERS.float()[:, None], r"target.squeeze\(1\) has one number"),
    "class numbers in a column": ((6, 3), NUMBERS[:, None], r"target.squeeze\(1\) has one number"),
    "maps of class numbers with a channel": ((6, 3, 4, 4), torch.zeros(6, 1, 4, 4).long(), r"target.squeeze\(1\)"),
    "class numbers in floating point": ((6, 3), NUMBERS.float(), r"target.long\(\) has class numbers"),
    "one-hot": ((6, 3), torch.nn.functional.one_hot(NUMBERS, 3), r"target.argmax\(1\)"),
}


@pytest.mark.parametrize("case", TARGETS)
def test_the_change_is_named(case: str) -> None:
    shape, target, advice = TARGETS[case]
    with pytest.raises(TargetError, match=advice):
        check_target(torch.zeros(shape), target)


def test_other_targets_get_no_advice_that_does_not_help() -> None:
    with pytest.raises(TargetError) as raised:
        check_target(torch.zeros(6, 3), NUMBERS.float() + 0.5)
    assert "target." not in str(raised.value)


def test_the_changed_targets_are_accepted() -> None:
    for shape, target in (
        ((6, 1), NUMBERS.float().unsqueeze(1)),
        ((6, 3), NUMBERS[:, None].squeeze(1)),
        ((6, 3), NUMBERS),
    ):
        assert check_target(torch.zeros(shape), target)[0] is target
