"""Products of rows, whatever blocks they come in."""

import pytest
import torch

from secateur.masking.row_products import RowProducts

ROWS = torch.randn(2, 12, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def sums_of(*blocks: torch.Tensor) -> RowProducts:
    products = RowProducts()
    for block in blocks:
        products.add(block)
    return products


@pytest.mark.parametrize("sizes", [[12], [1] * 12, [2, 2, 8], [3, 9], [9, 3], [4, 8]])
def test_blocks_add_up_to_the_products_of_all_rows(sizes: list[int]) -> None:
    blocks = ROWS.split(sizes, 1)
    products, first, others = sums_of(*blocks), sums_of(*blocks[:1]), sums_of(*blocks[1:])
    first.add_all(others)
    for sums in (products, first):
        assert sums.count == 12
        assert sums.rows() is None
        torch.testing.assert_close(sums.summed(), ROWS.transpose(1, 2) @ ROWS)


def test_rows_are_kept_while_they_have_twice_as_many_features() -> None:
    few = sums_of(ROWS[:, :3], ROWS[:, 3:4])
    torch.testing.assert_close(few.summed(), ROWS[:, :4].transpose(1, 2) @ ROWS[:, :4])
    assert few.gram is None
    rows = few.rows()
    assert rows is not None
    assert torch.equal(rows, ROWS[:, :4])
    few.add(ROWS[:, 4:5])
    assert few.rows() is None
    torch.testing.assert_close(few.summed(), ROWS[:, :5].transpose(1, 2) @ ROWS[:, :5])


def test_sums_are_added_without_a_change_of_the_others() -> None:
    others = sums_of(ROWS)
    before = others.summed().clone()
    sums = RowProducts()
    for _ in range(2):
        sums.add_all(others)
    assert sums.count == 24
    torch.testing.assert_close(sums.summed(), 2 * before)
    assert torch.equal(others.summed(), before)


def test_products_of_half_precision_are_taken_in_single_and_summed_in_double() -> None:
    half = ROWS.half()
    products = sums_of(half)
    assert products.summed().dtype == torch.float64
    expected = half.float().transpose(1, 2) @ half.float()
    assert torch.equal(products.summed(), expected.double())
