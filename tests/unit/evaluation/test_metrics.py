"""Metrics of the user's own: one number for all examples, or one for each, in reports, bounds, comparisons, curves."""

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from expected_warnings import untrained_networks
from linear_stack import linear_stack
from metric_functions import f1
from secateur.data.batch import Batch
from secateur.errors import BudgetError, DataError
from secateur.evaluation.metrics import MetricMeter, metric_change

pytestmark = untrained_networks


def psnr(outputs: Tensor, targets: Tensor) -> Tensor:
    return -10 * (outputs - targets).square().flatten(1).mean(1).clamp_min(1e-12).log10()


def absolute_error(outputs: Tensor, targets: Tensor) -> float:
    return float((outputs - targets).abs().mean())


absolute_error.higher_is_better = False  # type: ignore[attr-defined]


def labelled(model: nn.Module, count: int = 128) -> list[tuple[Tensor, Tensor]]:
    inputs = torch.randn(count, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        labels = (model(inputs) + 0.05 * torch.randn(count, 2)).argmax(1)
    return list(zip(inputs.split(32), labels.split(32), strict=True))


def regression() -> list[tuple[Tensor, Tensor]]:
    inputs = torch.randn(128, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        targets = linear_stack(6, 16, 2)(inputs)
    return list(zip(inputs.split(32), targets.split(32), strict=True))


def test_one_number_is_taken_of_all_examples_at_once() -> None:
    outputs, targets = torch.randn(40, 2), torch.randint(2, (40,))
    meter = MetricMeter(f1)
    for batch, labels in zip(outputs.split(16), targets.split(16), strict=True):  # 16, 16, 8
        meter.add(Batch((batch,), {}, labels), (batch, batch.flip(1)), batch)
    values, others = meter.results()
    assert values.value == pytest.approx(float(f1(outputs, targets)), abs=1e-7)
    assert others.value == pytest.approx(float(f1(outputs.flip(1), targets)), abs=1e-7)


def test_jackknife_of_a_mean_is_the_error_of_the_mean() -> None:
    outputs, targets = torch.randn(20, 1).double(), torch.zeros(20, 1).double()
    results = []
    for metric in (lambda a, b: (a - b).square().mean(), lambda a, b: (a - b).square().flatten(1).mean(1)):
        meter = MetricMeter(metric)
        meter.add(Batch((outputs,), {}, targets), (targets + 1, outputs), outputs)
        results.append(metric_change(*meter.results()))
    assert results[0].mean == pytest.approx(results[1].mean)
    assert results[0].half_width == pytest.approx(results[1].half_width)


@pytest.mark.parametrize("metric", [f1, psnr, absolute_error])
def test_report_names_the_metric_and_its_change(metric: object) -> None:
    model = linear_stack(6, 16, 2)
    data = labelled(model) if metric is f1 else regression()
    options = {"allocation": "uniform", "repair": "refit", "progress": False}
    report = sc.prune(model, data, {"macs": 0.5}, metric=metric, **options).report
    assert report.dense.metric is not None and report.pruned.metric is not None
    assert report.changes["metric"].mean == pytest.approx(report.pruned.metric - report.dense.metric)
    assert metric.__name__ in str(report) and metric.__name__ in report.to_json()  # type: ignore[attr-defined]


def test_without_targets_the_dense_outputs_stand_in_their_place() -> None:
    data = torch.randn(64, 6)
    report = sc.prune(linear_stack(6, 16, 2), data, {"macs": 0.5}, metric=absolute_error, progress=False).report
    assert report.dense.metric == 0.0 and report.pruned.metric is not None and report.pruned.metric > 0


def hit_rate_of_labels(outputs: Tensor, targets: Tensor) -> Tensor:
    if targets.dtype != torch.long:
        raise TypeError("labels are class numbers")
    return (outputs.argmax(1) == targets).double().mean()


def test_a_metric_of_labels_takes_them_from_test_alone() -> None:
    model = linear_stack(6, 16, 2)
    options = {"test": labelled(model), "metric": hit_rate_of_labels, "repair": "refit", "progress": False}
    for keep in ({"macs": 0.5}, {"loss": 0.5}):
        report = sc.prune(model, torch.randn(64, 6), keep, **options).report  # type: ignore[arg-type]
        assert report.dense.metric is not None and report.dense.metric > 0.8
    curve = sc.tradeoff(model, torch.randn(64, 6), {"macs": (0.5,)}, **options)  # type: ignore[arg-type]
    assert curve.measure == "metric"
    with pytest.raises(DataError, match="labels are class numbers; without targets the outputs of the dense network"):
        sc.prune(model, torch.randn(64, 6), {"metric": -0.1}, **options)  # type: ignore[arg-type]


def test_targets_that_only_the_metric_reads() -> None:
    model = linear_stack(6, 16, 2)
    data = [(inputs, {"class": labels}) for inputs, labels in labelled(model)]

    def hit_rate(outputs: Tensor, targets: dict[str, Tensor]) -> Tensor:
        return (outputs.argmax(1) == targets["class"]).double()

    report = sc.prune(model, data, {"macs": 0.5}, metric=hit_rate, progress=False).report
    assert report.dense.metric is not None and report.dense.metric > 0.8
    assert report.dense.accuracy is None


@pytest.mark.parametrize(("metric", "limit"), [(psnr, -1.0), (absolute_error, 0.05)])
def test_bound_on_the_metric(metric: object, limit: float) -> None:
    model = linear_stack(6, 16, 2)
    inputs = torch.randn(256, 6, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        targets = model(inputs) + 0.3 * torch.randn(256, 2, generator=torch.Generator().manual_seed(3))
    data = list(zip(inputs.split(32), targets.split(32), strict=True))
    plan = sc.prune(model, data, {"metric": limit}, metric=metric, progress=False).plan
    assert plan.change is not None and plan.change.unit == "metric" and plan.change.within
    assert plan.cost.macs < plan.dense.macs
    assert plan.change.mean >= limit if limit < 0 else plan.change.mean <= limit


def test_bound_without_a_metric_is_refused() -> None:
    with pytest.raises(BudgetError, match="give metric="):
        sc.prune(linear_stack(6, 16, 2), torch.randn(64, 6), {"metric": -0.1}, progress=False)


@pytest.mark.parametrize("limit", [0, float("nan"), "much"])
def test_bound_that_is_no_number(limit: object) -> None:
    with pytest.raises(BudgetError, match="not a bound"):
        sc.prune(linear_stack(6, 16, 2), torch.randn(64, 6), {"metric": limit}, metric=psnr, progress=False)  # type: ignore[dict-item]


def fails(outputs: Tensor, targets: Tensor) -> Tensor:
    raise KeyError("label")


@pytest.mark.parametrize(
    ("metric", "words"),
    [(fails, "KeyError"), (lambda a, b: a, r"gave \(2, 2\) for 2 examples"), (lambda a, b: "text", "fails")],
)
def test_metrics_that_cannot_be_used(metric: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        sc.prune(linear_stack(6, 16, 2), torch.randn(64, 6), {"macs": 0.5}, metric=metric, progress=False)


def test_comparison_ranks_by_the_metric() -> None:
    model, data = linear_stack(6, 16, 2), regression()
    compared = sc.compare(model, data, ("l2", "random"), {"macs": 0.5}, metric=psnr, repair=None, progress=False)
    values = {trial.by: trial.metrics.metric.values.value for trial in compared.trials if trial.metrics.metric}
    assert compared.best("none") == max(values, key=lambda by: values[by])
    assert "best psnr" in str(compared)
    lower = sc.compare(model, data, ("l2", "random"), {"macs": 0.5}, metric=absolute_error, repair=None, progress=False)
    errors = {trial.by: trial.metrics.metric.values.value for trial in lower.trials if trial.metrics.metric}
    assert lower.best("none") == min(errors, key=lambda by: errors[by])


def test_curve_shows_and_picks_by_the_metric() -> None:
    curve = sc.tradeoff(
        linear_stack(6, 16, 2),
        regression(),
        {"macs": (0.75, 0.4)},
        metric=absolute_error,
        repair="refit",
        progress=False,
    )
    assert curve.measure == "metric" and "metric, change" in str(curve)
    largest = max(point.changes["metric"].mean for point in curve.points)
    assert curve.pick(metric=largest + 1e-6).plan.cost.macs == min(p.result.plan.cost.macs for p in curve.points)
    with pytest.raises(BudgetError, match="no network"):
        curve.pick(metric=1e-9)


def test_examples_without_a_value_with_one_of_the_networks_make_no_pair() -> None:
    """The precision of an example of which the network predicts nothing is unknown."""

    def value_of_first_class(outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.where(outputs.argmax(1) == 0, outputs[:, 0], torch.nan)

    dense = torch.tensor([[1.0, 0.0], [2.0, 0.0], [4.0, 0.0], [0.0, 9.0]])
    small = torch.tensor([[2.0, 0.0], [0.0, 9.0], [6.0, 0.0], [8.0, 0.0]])
    meter = MetricMeter(value_of_first_class)
    meter.add(Batch((dense,), {}, torch.zeros(4)), (dense, small), dense)
    before, after = meter.results()
    assert (before.value, after.value) == (pytest.approx(7 / 3), pytest.approx(16 / 3))
    change = metric_change(before, after)
    assert change.mean == pytest.approx(3)
    assert change.half_width == pytest.approx(12.7062 * 0.5, rel=1e-4)  # of the differences 1 and 2
