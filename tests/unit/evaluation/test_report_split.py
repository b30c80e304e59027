"""Examples that are kept away for the report: how many, which, and that nothing else sees them."""

import pytest
import torch

import secateur as sc
from expected_warnings import untrained_networks
from secateur.data.batch import Batch
from secateur.errors import DataError
from secateur.evaluation.report_split import (
    repeated_examples,
    report_count,
    split_examples,
    split_report_examples,
    spread_runs,
)

pytestmark = untrained_networks


def numbered(total: int, size: int) -> list[Batch]:
    return [Batch((numbers,), {}, numbers[:, 0].long()) for numbers in torch.arange(float(total))[:, None].split(size)]


def numbers(batches: list[Batch]) -> list[int]:
    return [int(value) for batch in batches for value in batch.args[0][:, 0]]


def multilayer(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)).eval()


@pytest.mark.parametrize(
    ("total", "count"),
    [(1, 0), (31, 0), (32, 8), (64, 16), (100, 16), (128, 16), (256, 32), (1024, 128), (8192, 1024), (100_000, 1024)],
)
def test_default_number_of_examples(total: int, count: int) -> None:
    assert report_count(total, None) == count


@pytest.mark.parametrize(("total", "size"), [(32, 32), (64, 5), (257, 32), (1000, 1)])
def test_parts_are_disjoint_and_cover_all(total: int, size: int) -> None:
    fitted, measured = split_report_examples(numbered(total, size), None)
    assert sorted([*numbers(fitted), *numbers(measured)]) == list(range(total))
    assert len(numbers(measured)) == report_count(total, None)
    assert all(batch.target.tolist() == batch.args[0][:, 0].tolist() for batch in [*fitted, *measured])


def test_runs_are_spread_over_all_examples() -> None:
    mask = spread_runs(256, 32)
    assert [int(run.sum()) for run in mask.split(32)] == [4] * 8
    assert mask[14:18].all() and not mask[:14].any()


def test_data_sorted_by_class_keep_all_classes_in_both_parts() -> None:
    labels = torch.arange(10).repeat_interleave(32)
    mask = spread_runs(len(labels), 40)
    assert len(labels[mask].unique()) >= 8
    assert len(labels[~mask].unique()) == 10


def test_whole_batches_are_not_divided() -> None:
    batches = [Batch((torch.full((16, 1), float(number)),), {}, is_whole=True) for number in range(8)]
    fitted, measured = split_report_examples(batches, None)
    assert len(fitted) == 7 and len(measured) == 1


def test_one_whole_batch_is_not_divided() -> None:
    batches = [Batch((torch.zeros(64, 1),), {}, is_whole=True)]
    assert split_report_examples(batches, None) == (batches, [])


@pytest.mark.parametrize("holdout", [0.001, 0.999])
def test_fraction_that_leaves_a_part_empty(holdout: float) -> None:
    with pytest.raises(DataError, match="leaves none in one part"):
        split_report_examples(numbered(64, 16), holdout)


def test_same_examples_as_test_are_in_sample() -> None:
    batches = numbered(64, 16)
    examples = split_examples(batches, numbered(64, 8), None)
    assert not examples.held_out and "64 of the 64 test examples" in examples.notes[0]


def test_some_repeated_examples_are_named() -> None:
    batches = numbered(64, 16)
    assert repeated_examples(batches, numbered(80, 16)) == 64
    assert split_examples(batches, numbered(80, 16), None).held_out


def test_nothing_but_the_report_depends_on_the_examples_kept_away() -> None:
    model, data = multilayer(), torch.randn(128, 6)
    changed = torch.where(spread_runs(128, 16)[:, None], data * 3 + 1, data)
    first, second = (
        sc.prune(model, list(inputs.split(32)), keep={"macs": 0.5}, progress=False) for inputs in (data, changed)
    )
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True))
    assert first.report.held_out and first.report.examples == 16
    assert first.report.pruned.divergence != second.report.pruned.divergence


def test_report_is_timed_on_a_batch_of_the_user() -> None:
    report = sc.prune(multilayer(), list(torch.randn(128, 6).split(32)), keep={"macs": 0.5}, progress=False).report
    assert report.pruned.latency.batch == 32


def test_few_examples_are_named_in_sample() -> None:
    report = sc.prune(multilayer(), torch.randn(24, 6), keep={"macs": 0.5}, progress=False).report
    assert not report.held_out and report.examples == 24
    assert "divergence from dense, in-sample" in str(report) and "(in-sample)" in str(report)
    assert "±" not in str(report)


def test_overfitted_network_is_not_reported_as_equal_to_the_dense_one() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 96), torch.nn.ReLU(), torch.nn.Linear(96, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1)
    ).eval()
    data, others = torch.randn(48, 64), torch.randn(2000, 64)
    result = sc.prune(model, data, keep={"macs": 0.5}, progress=False)
    with torch.no_grad():
        dense, small = model(others), result.model(others)
    truth = float((small - dense).square().mean() / dense.square().mean())
    change = result.report.changes["divergence"]
    assert abs(change.mean - truth) < 2 * change.half_width
    assert result.report.pruned.divergence > 0.3 * truth
