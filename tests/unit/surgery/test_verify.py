"""The difference of two outputs, as a cut is verified by it."""

import pytest
import torch

from secateur.errors import SurgeryError
from secateur.surgery.verify import output_difference

VALUES = torch.tensor([1.0, -4.0, 2.0])


def test_the_difference_is_relative_to_the_largest_entry_of_the_worst_tensor() -> None:
    other = VALUES + torch.tensor([0.0, 0.0, 0.5])
    assert output_difference(other, VALUES)[0] == pytest.approx(0.5 / 4)
    assert output_difference((other, VALUES), (VALUES, VALUES))[0] == pytest.approx(0.5 / 4)
    assert output_difference((VALUES, other * 2), (VALUES, VALUES))[0] == pytest.approx(4 / 4)


def test_numbers_without_a_fraction_are_passed_over_and_what_follows_is_not() -> None:
    counts = torch.tensor([1, 2])
    assert output_difference((counts, VALUES + 1), (counts + 1, VALUES))[0] == pytest.approx(1 / 4)


def test_infinite_entries_must_be_the_same_and_others_are_compared() -> None:
    infinite = torch.tensor([float("inf"), -4.0, 2.0])
    assert output_difference(infinite, infinite)[0] == 0
    assert output_difference(infinite + 1, infinite)[0] == pytest.approx(1 / 4)
    assert output_difference(VALUES, infinite)[0] == float("inf")
    assert output_difference(infinite.neg(), infinite)[0] == float("inf")
    assert output_difference(infinite * float("nan"), infinite)[0] == float("inf")
    assert output_difference(infinite * float("nan"), infinite * float("nan"))[0] == 0


def test_complex_numbers_are_compared() -> None:
    values = torch.complex(VALUES, VALUES)
    difference, allowed = output_difference((VALUES, values + 1j), (VALUES, values))
    assert difference == pytest.approx(1 / (4 * 2**0.5))
    assert allowed == 1e-4
    assert output_difference(values, values)[0] == 0


@pytest.mark.parametrize(("dtype", "allowed"), [(torch.float32, 1e-4), (torch.float64, 1e-8)])
def test_the_tolerance_is_that_of_the_type(dtype: torch.dtype, allowed: float) -> None:
    assert output_difference(VALUES.to(dtype), VALUES.to(dtype))[1] <= allowed
    assert output_difference(VALUES, VALUES, torch.bfloat16)[1] > 1e-3


def test_outputs_of_other_forms_are_refused() -> None:
    with pytest.raises(SurgeryError, match=r"returns shapes \[\(2,\)\] where the dense one returns \[\(3,\)\]"):
        output_difference(VALUES[:2], VALUES)
    with pytest.raises(SurgeryError, match="returns shapes"):
        output_difference((VALUES, VALUES), VALUES)
