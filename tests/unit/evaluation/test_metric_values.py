"""Metrics of the user's own that have no value, or are infinite, and bounds whose sign allows any loss."""

import math

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from expected_warnings import untrained_networks
from linear_stack import linear_stack
from metric_functions import f1
from secateur.data.batch import Batch
from secateur.errors import BudgetError, DataError, SecateurWarning
from secateur.evaluation.metrics import MetricMeter, metric_change

pytestmark = untrained_networks


def labelled(count: int = 128, classes: int = 2) -> list[tuple[Tensor, Tensor]]:
    """Batches of inputs and labels, of which the first 64 examples are all of class 0."""
    inputs = torch.randn(count, 6, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(count) % classes
    labels[: count // 2] = 0
    return list(zip(inputs.split(32), labels.split(32), strict=True))


def nan_values(outputs: Tensor, targets: Tensor) -> Tensor:
    return torch.full((len(outputs),), math.nan)


def nan_number(outputs: Tensor, targets: Tensor) -> float:
    return math.nan


def recall(outputs: Tensor, targets: Tensor) -> Tensor:
    """The fraction of the examples of class 1 that are found; NaN where there are none."""
    return (outputs.argmax(1) == 1)[targets == 1].double().mean()


def hits_of_class_1(outputs: Tensor, targets: Tensor) -> Tensor:
    hits = (outputs.argmax(1) == targets).double()
    return torch.where(targets == 1, hits, torch.nan)


def psnr(outputs: Tensor, targets: Tensor) -> Tensor:
    return -10 * (outputs - targets).square().flatten(1).mean(1).log10()


@pytest.mark.parametrize("metric", [nan_values, nan_number])
@pytest.mark.parametrize("keep", [{"macs": 0.5}, {"metric": -0.1}])
def test_metric_without_any_value_is_refused_before_the_network_is_traced(metric: object, keep: object) -> None:
    class Untraceable(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            assert not torch.compiler.is_compiling(), "the network is traced"
            return self.layer(x)  # type: ignore[no-any-return]

    with pytest.raises(DataError, match="is NaN for all 128 examples with the dense network's outputs"):
        sc.prune(Untraceable(), labelled(), keep, metric=metric, progress=False)  # type: ignore[arg-type]


@pytest.mark.parametrize("metric", [recall, hits_of_class_1])
def test_metric_without_a_value_for_the_first_examples_is_taken(metric: object) -> None:
    report = sc.prune(
        linear_stack(6, 16, 2), labelled(), {"macs": 0.5}, metric=metric, repair="refit", progress=False
    ).report
    assert report.dense.metric is not None and math.isfinite(report.dense.metric)
    assert math.isfinite(report.changes["metric"].mean)


def test_report_warns_of_a_metric_without_a_value_on_its_examples() -> None:
    test = [(torch.randn(32, 6), torch.zeros(32).long())]
    with pytest.raises(DataError, match="is NaN for all 32 examples"):
        sc.prune(linear_stack(6, 16, 2), labelled(), {"macs": 0.5}, test=test, metric=recall, progress=False)

    def certain(outputs: Tensor, targets: Tensor) -> Tensor:
        """A value where the outputs are exactly those of the dense network."""
        return torch.where((outputs == targets).all(1), 1.0, torch.nan)

    with pytest.warns(SecateurWarning, match="is NaN for all examples of the report with the small network's outputs"):
        report = sc.prune(
            linear_stack(6, 16, 2), torch.randn(64, 6), {"macs": 0.3}, metric=certain, repair="refit", progress=False
        ).report
    assert report.dense.metric == 1 and report.pruned.metric is not None and math.isnan(report.pruned.metric)


def test_number_without_a_value_where_a_group_is_left_out_has_no_interval() -> None:
    targets = torch.zeros(40).long()
    targets[7] = 1  # without its group, no example is of class 1
    outputs = torch.randn(40, 2)
    meter = MetricMeter(recall)
    meter.add(Batch((outputs,), {}, targets), (outputs, -outputs), outputs)
    dense, small = meter.results()
    assert {dense.value, small.value} == {0.0, 1.0}
    change = metric_change(dense, small)
    assert abs(change.mean) == 1 and change.half_width == math.inf


def test_bound_on_a_metric_that_is_infinite_for_equal_outputs() -> None:
    with pytest.raises(DataError, match=r"psnr is infinite for the dense network.*give targets"):
        sc.prune(linear_stack(6, 16, 2), torch.randn(64, 6), {"metric": -3}, metric=psnr, progress=False)


@pytest.mark.parametrize(("is_higher_better", "bound"), [(False, -0.05), (True, 0.05)])
def test_bound_whose_sign_allows_any_loss(is_higher_better: bool, bound: float) -> None:
    class ErrorRate:
        higher_is_better = is_higher_better

        def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return (outputs.argmax(1) != targets).double()

    with pytest.raises(BudgetError, match=rf"would allow any loss.*give {{'metric': {-bound:g}}}"):
        sc.prune(linear_stack(6, 16, 2), labelled(), {"metric": bound}, metric=ErrorRate(), progress=False)


def test_comparison_shows_the_mean_that_it_ranks_by() -> None:
    compared = sc.compare(
        linear_stack(6, 16, 2), labelled(), ("l2", "random"), {"macs": 0.5}, metric=f1, repair=None, progress=False
    )
    values = {trial.by: trial.metrics.metric.values.value for trial in compared.trials if trial.metrics.metric}
    assert compared.mean_cost("l2", "none") == -values["l2"]
    assert f"best f1, {max(values.values()):.4g}" in compared.recommendation("none")


def test_comparison_on_examples_without_a_value_is_refused_before_anything_is_scored() -> None:
    inputs, labels = torch.randn(64, 6), torch.ones(64).long()
    labels[24:32] = labels[56:] = 0  # the quarter that is held out

    def fails(*_: object) -> Tensor:
        raise AssertionError("the units are scored")

    with pytest.raises(DataError, match="recall is NaN for all 16 examples held out"):
        sc.compare(linear_stack(6, 16, 2), [(inputs, labels)], (fails,), {"macs": 0.5}, metric=recall, progress=False)


def test_bound_in_the_other_direction_than_the_change_is_answered() -> None:
    def nearness(outputs: Tensor, targets: Tensor) -> Tensor:
        return -(outputs - targets).square().mean(1)

    with pytest.warns(SecateurWarning, match="if larger values are better, give {'metric': -1e-06}"):
        sc.prune(
            linear_stack(6, 16, 2), torch.randn(64, 6), {"metric": 1e-6}, metric=nearness, repair=None, progress=False
        )
