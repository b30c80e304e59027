"""Measures of two networks on the same examples: exact tiny cases."""

from math import log

import pytest
import torch
from torch import Tensor, nn

from secateur.data.batch import Batch
from secateur.evaluation.class_hits import class_hits, top_classes
from secateur.evaluation.dense_outputs import DenseOutputs
from secateur.evaluation.divergence import divergence, output_scales
from secateur.evaluation.evaluate import ExampleMeasures, evaluate, optional_mean, output_divergences
from secateur.evaluation.output_pairs import OutputPair
from secateur.utils.live_bytes import peak_bytes

DENSE = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
SMALL = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])


class Fixed(nn.Module):
    """A network whose output is its input plus a parameter."""

    def __init__(self, shift: Tensor) -> None:
        super().__init__()
        self.shift = nn.Parameter(shift)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


def measures_of(dense: Tensor, small: Tensor, target: Tensor | None) -> tuple[ExampleMeasures, ExampleMeasures]:
    zeros = torch.zeros_like(dense)
    batches = [Batch((zeros[[at]],), {}, None if target is None else target[[at]]) for at in range(len(dense))]
    pairs = torch.cat([OutputPair(b, dense[[i]], small[[i]]).measures() for i, b in enumerate(batches)], 2)
    return ExampleMeasures(*pairs[0]), ExampleMeasures(*pairs[1])


def test_each_measure_of_each_example() -> None:
    dense, small = measures_of(DENSE, SMALL, torch.tensor([0, 1, 1]))
    assert dense.accuracies.tolist() == [1, 1, 0]
    assert small.accuracies.tolist() == [1, 0, 0]
    assert dense.agreements.tolist() == [1, 1, 1]
    assert small.agreements.tolist() == [1, 0, 1]
    assert dense.divergences.tolist() == [0, 0, 0]
    assert float(small.divergences[2]) == 0
    assert small.losses.tolist() == pytest.approx([log(1 + 1 / torch.e), log(1 + torch.e), log(1 + torch.e)], rel=1e-6)


def test_without_labels_the_loss_is_the_divergence() -> None:
    dense, small = measures_of(DENSE, SMALL, None)
    assert torch.equal(small.losses, small.divergences)
    assert bool(dense.accuracies.isnan().all())
    assert optional_mean(dense.accuracies) is None
    assert optional_mean(small.agreements) == pytest.approx(2 / 3)


def test_labels_that_are_ignored_do_not_count() -> None:
    """Classes of images lie along the second axis; an example without a label that counts has no accuracy."""
    scores = torch.tensor([[[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]] * 2)  # (2 examples, 2 classes, 3 positions)
    assert top_classes(scores).tolist() == [[0, 1, 0]] * 2
    hits = class_hits(scores, torch.tensor([[0, 0, -100], [-100, -100, -100]]), 2)
    assert float(hits[0]) == 0.5
    assert bool(hits[1].isnan())
    assert bool(class_hits(scores, torch.rand(2, 3), 2).isnan().all())
    assert bool(class_hits(torch.rand(3), torch.tensor([0, 1, 0]), 3).isnan().all())


def test_two_networks_on_the_same_batches_as_one_by_one() -> None:
    torch.manual_seed(0)
    x, labels = torch.randn(6, 3), torch.randint(3, (6,))
    dense, small = Fixed(torch.zeros(3)).train(), Fixed(torch.tensor([0.0, 1, 0])).train()
    batches = [Batch((inputs,), {}, target) for inputs, target in zip(x.split(4), labels.split(4), strict=True)]
    before, after = evaluate(dense, small, batches)
    assert len(before.losses) == len(after.losses) == 6
    assert torch.allclose(after.losses, nn.functional.cross_entropy(small(x), labels, reduction="none").double())
    assert torch.equal(after.accuracies, (small(x).argmax(1) == labels).double())
    assert torch.equal(after.agreements, (small(x).argmax(1) == x.argmax(1)).double())
    assert torch.equal(output_divergences(DenseOutputs(dense), small, batches), after.divergences)
    assert dense.training and small.training
    by_own_loss = evaluate(dense, small, batches, loss=lambda output, target: output.sum(1))
    assert torch.allclose(by_own_loss[1].losses - by_own_loss[0].losses, torch.ones(6, dtype=torch.float64), atol=1e-6)


def test_activations_and_embeddings_are_compared_by_their_values() -> None:
    """A softmax of either is almost uniform: its divergence is near 0 however different the outputs are."""
    torch.manual_seed(0)
    activations, others = torch.rand(8, 40), torch.rand(8, 40)
    embeddings, turned = (nn.functional.normalize(torch.randn(8, 40), dim=1) for _ in range(2))
    for dense, output in ((activations, others), (embeddings, turned)):
        expected = ((output - dense).square().mean(1) / dense.square().mean()).double()
        assert torch.allclose(divergence(output, dense).double(), expected, rtol=1e-5)
        assert torch.allclose(
            divergence(output[:1], dense[:1], output_scales([dense])).double(), expected[:1], rtol=1e-5
        )
        assert float(divergence(output, dense).mean()) > 0.4
    assert OutputPair(Batch((embeddings,), {}), embeddings, turned).agreements(turned).isnan().all()
    assert not OutputPair(Batch((activations,), {}), activations, others).agreements(others).isnan().any()


def test_probabilities_are_not_taken_for_logits() -> None:
    logits, others = torch.randn(8, 5), torch.randn(8, 5)
    assert torch.allclose(divergence(others.softmax(1), logits.softmax(1)), divergence(others, logits), atol=1e-5)


def test_probability_of_zero_is_finite() -> None:
    certain = torch.eye(4)
    assert bool(torch.isfinite(divergence(certain.roll(1, 0), certain)).all())


def test_outputs_with_targets_like_them_are_no_classes() -> None:
    dense, small = torch.randn(6, 3), torch.randn(6, 3)
    pair = OutputPair(Batch((dense,), {}, torch.randn(6, 3)), dense, small)
    assert pair.agreements(small).isnan().all()
    expected = (small - dense).square().mean(1) / dense.square().mean()
    assert torch.allclose(pair.divergences(small), expected.double(), rtol=1e-5)


@pytest.mark.parametrize("kind", ["logits", "probabilities", "tokens"])
def test_divergences_over_a_large_vocabulary_take_little_memory_and_give_the_same_bits(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    draws = torch.Generator().manual_seed(0)
    shape = (6, 40, 500) if kind == "tokens" else (240, 500)
    scores, dense = (torch.randn(shape, generator=draws) for _ in range(2))
    if kind == "probabilities":
        scores, dense = scores.softmax(1), dense.softmax(1)
    output, reference = ({"logits": scores}, {"logits": dense}) if kind == "tokens" else (scores, dense)
    whole = divergence(output, reference, temperature=2.0)
    needed = peak_bytes(lambda: divergence(output, reference, temperature=2.0))
    monkeypatch.setattr("secateur.evaluation.divergence.MOST_ENTRIES", 10_000)
    assert torch.equal(divergence(output, reference, temperature=2.0), whole) and whole.shape == shape[:1]
    assert peak_bytes(lambda: divergence(output, reference, temperature=2.0)) < needed / 4
    trained = scores.clone().requires_grad_()
    assert divergence(trained if kind != "tokens" else {"logits": trained}, reference).requires_grad
