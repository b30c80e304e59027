"""Units that hardly vary get no huge weights, whatever their scale."""

import gc
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from expected_warnings import untrained_networks
from secateur.recovery.penalty_floor import RESOLUTION, _medians, penalty_floor
from secateur.recovery.regression_moments import FeatureSums, RegressionMoments
from secateur.recovery.ridge import RIDGES, RidgeFactor, systems_of

pytestmark = untrained_networks

ROWS = torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]], dtype=torch.float64)[None]  # (1, 4, 2), mean squares of 1


def change(rows: Tensor, matrix: Tensor, ridge: float = 1e-5) -> Tensor:
    """Return the change that adds the second column of ROWS to the output. (features,)"""
    moments = RegressionMoments.of(rows, ROWS[..., 1:])
    floor = penalty_floor(matrix, moments, rows.shape[2])
    return systems_of(replace(moments, floor=floor), False)(ridge).solution.flatten()


def test_a_weight_on_a_unit_that_hardly_varies_is_limited() -> None:
    """The weight that explains all is 1,000; errors of 1/256 of the inputs would count more than what it explains."""
    rows = ROWS * torch.tensor([1, 1e-3])
    power = 1 + 1e-6  # of the output, with weights of 1
    expected = 1e-3 / (1e-6 + RESOLUTION**2 * power / 2)
    torch.testing.assert_close(change(rows, torch.ones(1, 1, 2)), torch.tensor([0, expected]).double())
    assert 115 < expected < 117


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_scale_of_a_unit_does_not_matter(scale: float) -> None:
    """A unit with small values and a large weight counts as any other."""
    scales = torch.tensor([1, scale]).double()
    weights = change(ROWS * scales, (1 / scales)[None, None])
    torch.testing.assert_close(weights * scales, torch.tensor([0.0, 1]).double(), rtol=1e-4, atol=1e-9)


def test_the_scale_of_an_output_does_not_matter() -> None:
    moments = RegressionMoments.of(ROWS * torch.tensor([1, 1e-3]), ROWS)
    matrix = torch.tensor([[[1.0, 2], [3, 1]]])
    floor = penalty_floor(matrix, moments, 2)
    torch.testing.assert_close(penalty_floor(matrix * torch.tensor([[[1e4], [1]]]), moments, 2), floor)


def test_a_constant_and_weights_of_zero_have_no_floor() -> None:
    moments = RegressionMoments.of(ROWS, ROWS)
    assert penalty_floor(torch.ones(1, 2, 2), moments, 1)[0].tolist() == [RESOLUTION**2, 0]
    assert not penalty_floor(torch.zeros(1, 2, 2), moments, 2).any()


@pytest.mark.parametrize("scale", [0.0, 1e-100, 1e-6])
@pytest.mark.parametrize("others", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("outputs", [2, 300])
def test_an_output_that_reads_a_silent_input_alone_takes_no_floor_away(
    scale: float, others: float, outputs: int
) -> None:
    """Other inputs have the floor that they have without it, or, as the mean share is over it too, little more."""
    moments = RegressionMoments.of(torch.cat([ROWS, ROWS[..., :1] * scale], 2), ROWS)
    matrix = torch.ones(1, outputs, 3)
    matrix[..., 2] = others
    expected = penalty_floor(matrix[:, 1:], moments, 3)[0, :2]
    matrix[0, 0] = torch.tensor([0.0, 0, 1])
    floor = penalty_floor(matrix, moments, 3)[0]
    assert expected.min() > RESOLUTION**2 / 2
    assert bool((floor[:2] > 0.999 * expected).all() and (floor[:2] < 1.001 * expected * outputs / (outputs - 1)).all())
    assert others == 0 or floor[2] > RESOLUTION**2 / 2  # the silent input itself is limited as others limit it


@pytest.mark.parametrize("scale", [0.0, 1e-100, 1e-6, 1e3])
def test_the_floor_of_a_group_does_not_depend_on_other_groups(scale: float) -> None:
    """Each group of a depthwise convolution has inputs of its own, and one may be silent."""
    rows, matrix = ROWS.repeat(4, 1, 1), torch.tensor([1.0, 2]).repeat(4, 1, 1)
    expected = penalty_floor(matrix, RegressionMoments.of(rows, rows), 2)
    rows[1] *= scale
    floor = penalty_floor(matrix, RegressionMoments.of(rows, rows), 2)
    assert torch.equal(floor[[0, 2, 3]], expected[[0, 2, 3]]) and bool(expected.all())
    torch.testing.assert_close(floor[1], expected[1] * scale**2)


def test_a_layer_without_inputs_has_no_floor() -> None:
    moments = RegressionMoments.of(ROWS[..., :1], ROWS)
    assert penalty_floor(torch.ones(1, 2, 1), moments, 0).tolist() == [[0.0]]


def test_shifted_inputs_count_about_zero() -> None:
    moments, shift = RegressionMoments.of(ROWS, ROWS), torch.tensor([[[10.0, 0.0]]])
    floor = penalty_floor(torch.ones(1, 1, 2), moments, 2, shift)
    torch.testing.assert_close(floor, torch.full((1, 2), RESOLUTION**2 * 102 / 2).double())


SAME, DIFFERENT, ABOVE_ALL_RIDGES = [[1e3, 0]] * 4, [[1e3 * layer, 0] for layer in range(1, 5)], [[1e3, 1e3]] * 4


@pytest.mark.parametrize(
    ("floors", "kept", "computed"),
    [(SAME, len(RIDGES), len(RIDGES)), (DIFFERENT, len(RIDGES), 4 * len(RIDGES)), (ABOVE_ALL_RIDGES, 1, 1)],
)
def test_layers_whose_floors_differ_keep_the_factors_of_one_layer(
    floors: list[list[float]], kept: int, computed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many layers read the same rows, no more factorizations stay than there are ridges."""
    factors, original = list[weakref.ref[RidgeFactor]](), RidgeFactor.__init__

    def recorded(self: RidgeFactor, *options: Any) -> None:
        original(self, *options)
        factors.append(weakref.ref(self))

    monkeypatch.setattr(RidgeFactor, "__init__", recorded)
    inputs = FeatureSums(is_shared=True)
    for values in floors:
        moments = RegressionMoments.of(ROWS, ROWS, inputs)
        inputs.is_complete = True
        floor = torch.tensor([values]).double()
        shared = systems_of(replace(moments, floor=floor), False)
        alone = systems_of(replace(RegressionMoments.of(ROWS, ROWS), floor=floor), False)
        solutions = [(shared(ridge).solution, alone(ridge).solution) for ridge in RIDGES]
        assert all(torch.equal(*pair) for pair in solutions)
    gc.collect()
    assert sum(factor() is not None for factor in factors) == kept
    assert len(factors) == computed + len(floors) * len(RIDGES)  # the latter with sums of their own


def test_few_rows_have_the_floor_that_their_products_have() -> None:
    torch.manual_seed(0)
    rows, targets = torch.randn(2, 10, 40).double() * torch.logspace(-5, 0, 40), torch.randn(2, 10, 3).double()
    moments = RegressionMoments.of(rows, targets)
    moments = replace(moments, floor=penalty_floor(torch.ones(2, 3, 40), moments, 40))
    assert moments.features is not None
    for ridge in (1e-5, 1e-2, 1.0):
        gram = rows.mT @ rows + torch.diag_embed(moments.penalty(ridge, False))
        expected = torch.linalg.solve(gram, rows.mT @ targets)
        torch.testing.assert_close(systems_of(moments, False)(ridge).solution, expected, rtol=1e-6, atol=1e-8)


def in_8_bits(values: Tensor) -> Tensor:
    """Round values to 256 levels between the least and the largest."""
    step = (values.max() - values.min()) / 255
    rounded: Tensor = (values / step).round() * step
    return rounded


@pytest.mark.parametrize("repair", ["refit", ["refit", "adapt"]])
def test_a_repaired_network_works_with_activations_of_8_bits(repair: str | list[str]) -> None:
    """Units that vary by a thousandth of what others do got weights 2,600 times larger; rounding left noise."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 4)).eval()
    first, last = model[0], model[2]
    with torch.no_grad():
        first.weight[::4] *= 1e-3  # type: ignore[operator]
        first.bias[::4] *= 1e-3  # type: ignore[operator]
    x, others = torch.randn(256, 8), torch.randn(256, 8)
    network = sc.trace(model, x[:2])
    plan = sc.plan(network, sc.score(network, by="l2"), keep={"macs": 0.5})
    plan = replace(plan, kept={"0": torch.arange(0, 32, 2)})
    small = sc.repair(sc.cut(model, plan), model, plan, x, repair, progress=False)
    assert small[2].weight.abs().max() < 100 * last.weight.abs().max()  # type: ignore[index,union-attr,operator]
    with torch.no_grad():
        outputs = small[2](in_8_bits(small[:2](others)))  # type: ignore[index,operator]
        plain, rounded = ((result - model(others)).square().mean() for result in (small(others), outputs))
    assert rounded < 1.5 * plain


def test_medians_are_the_lower_ones_of_what_is_a_number() -> None:
    """As of the sorted numbers, of which half are at most as large."""
    torch.manual_seed(0)
    values = torch.rand(2, 7, 40, dtype=torch.float64)
    values[torch.rand_like(values) < 0.4] = torch.nan
    values[1, :, 3] = torch.nan
    medians = _medians(values)
    for group in range(2):
        for column in range(40):
            numbers = sorted(values[group, :, column][~values[group, :, column].isnan()].tolist())
            expected = numbers[(len(numbers) - 1) // 2] if numbers else float("inf")
            assert float(medians[group, 0, column]) == expected
