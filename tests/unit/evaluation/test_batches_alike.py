"""Measures of examples do not depend on how these are divided into batches."""

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur.data.batch import Batch
from secateur.data.conversion import as_batches
from secateur.evaluation.divergence import divergence, output_scales
from secateur.evaluation.evaluate import evaluate
from secateur.evaluation.losses import Reference, example_losses
from secateur.importance.drawn_loss import DrawnLosses


class TwoOutputsModel(nn.Module):
    """A regression with two outputs of different sizes and scales."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.value, self.image = nn.Linear(4, 8), nn.Linear(8, 1), nn.Linear(8, 12)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        hidden = torch.relu(self.hidden(x))
        return self.value(hidden), 100 * self.image(hidden).unflatten(1, (3, 2, 2))


@pytest.mark.parametrize("size", [1, 7, 24])
def test_divergences_of_a_regression_are_fractions_of_the_mean_square_of_all_examples(size: int) -> None:
    torch.manual_seed(0)
    dense, small, x = TwoOutputsModel(), TwoOutputsModel(), torch.randn(24, 4)
    with torch.no_grad():
        pairs = list(zip(small(x), dense(x), strict=True))
    expected = torch.stack([(a - b).square().flatten(1).mean(1) / b.square().mean() for a, b in pairs]).mean(0)
    measures = evaluate(dense, small, as_batches(x.split(size)))[1]
    assert torch.allclose(measures.divergences, expected.double(), rtol=1e-4)
    assert torch.allclose(measures.losses, expected.double(), rtol=1e-4)


@pytest.mark.parametrize("size", [1, 10])
def test_values_of_an_unlabelled_regression_do_not_depend_on_the_batches(size: int) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1)), torch.randn(20, 4)
    network = sc.trace(model, x)
    whole, divided = (
        sc.score(network, data, by="leave-one-out", progress=False)["0"].per_example
        for data in (x, list(x.split(size)))
    )
    assert whole is not None and divided is not None
    assert torch.allclose(whole, divided, rtol=1e-4, atol=1e-9)


def test_few_rows_of_probabilities_are_compared_as_many_are() -> None:
    torch.manual_seed(0)
    dense, small = torch.randn(32, 2).softmax(1), torch.randn(32, 2).softmax(1)
    by_four = [divergence(a, b) for a, b in zip(small.split(4), dense.split(4), strict=True)]
    assert torch.allclose(torch.cat(by_four), divergence(small, dense))


def test_scales_are_those_of_all_batches_and_none_for_class_scores() -> None:
    outputs = torch.randn(30, 3, 4, 4)
    (scale,) = output_scales(outputs.split(7))
    assert torch.allclose(scale, outputs.double().square().mean())
    assert output_scales(torch.randn(30, 5).split(7)) == []


def test_the_loss_of_a_graph_is_the_mean_over_its_labelled_nodes() -> None:
    torch.manual_seed(0)
    scores, labels = torch.randn(6, 3), torch.tensor([0, 1, -100, -100, -100, 2])
    expected = nn.functional.cross_entropy(scores, labels)
    assert torch.allclose(example_losses(None, scores, Reference(labels, None), 1), expected)
    rows = example_losses(None, scores, Reference(labels, None), 6)
    assert torch.equal(rows[2:5], torch.zeros(3))


def test_squared_errors_of_half_precision_do_not_overflow() -> None:
    output, target = torch.full((4, 1), 500.0, dtype=torch.half), torch.zeros(4, 1, dtype=torch.half)
    assert example_losses(None, output, Reference(target, None), 4).tolist() == [250_000.0] * 4


@pytest.mark.parametrize("is_image", [False, True])
def test_large_graphs_count_as_small_ones_in_drawn_losses(is_image: bool) -> None:
    """The divergence of an example is a mean over its rows, so that the slopes of many alike count as those of few."""
    weight = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    graph = Batch((torch.ones(4, 5),), {}, is_one_example=True)

    def mean_square(rows: int) -> float:
        total = 0.0
        for seed in range(400):
            output = torch.ones(rows, 5) @ weight
            output = output[:, :, None, None] if is_image else output
            loss = DrawnLosses(torch.Generator().manual_seed(seed)).of(output, graph)
            total += float(torch.autograd.grad(loss, weight)[0].square().sum())
        return total / 400

    assert mean_square(40) == pytest.approx(mean_square(4), rel=0.25)


def test_two_classes_of_one_graph_are_not_two_examples() -> None:
    class PointsModel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.last(torch.relu(self.first(x)).mean(0, keepdim=True))
            return scores

    torch.manual_seed(0)
    data = [Batch((torch.randn(count, 3),), {}) for count in (30, 40, 20, 50)]
    result = sc.prune(PointsModel(), data, {"macs": 0.5}, repair=None, progress=False)
    assert result.report.examples == 4
