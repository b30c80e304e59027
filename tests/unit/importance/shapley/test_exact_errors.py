"""Standard errors and intervals of values without sampling: they are of the examples alone."""

import pytest
import torch
from torch import nn

import secateur as sc
from secateur.importance.estimates import student_quantile
from secateur.importance.scores import GroupScores


def exact_scores(examples: int, aggregate: str = "mean") -> GroupScores:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    data = [(torch.randn(examples, 4), torch.randint(0, 3, (examples,)))]
    by = sc.Shapley(sampler="exact", aggregate=aggregate)
    return sc.score(sc.trace(model, data), data, by=by, progress=False)["0"]


@pytest.mark.parametrize("examples", [20, 33, 70])  # the last microbatch of 33 has one example
def test_errors_of_exact_values_are_those_of_the_mean_over_examples(examples: int) -> None:
    scores = exact_scores(examples)
    assert scores.per_example is not None and scores.errors_here is not None
    expected = scores.per_example.std(1) / examples**0.5
    assert torch.allclose(scores.errors, expected)
    assert not bool(scores.errors_here.any())
    low, high = scores.interval()
    reach = student_quantile(0.95, examples - 1)
    assert torch.allclose((high - low) / 2, reach * expected)
    assert torch.equal(*scores.interval(here=True))


def test_errors_of_other_statistics_of_exact_values_are_of_the_examples() -> None:
    errors, jackknife = exact_scores(33, "robust").errors, []
    values = exact_scores(33, "robust").per_example
    assert values is not None
    for index in range(33):
        others = torch.cat([values[:, :index], values[:, index + 1 :]], 1)
        jackknife.append(others.mean(1) + 2 * others.std(1))
    expected = (32 / 33 * (torch.stack(jackknife) - torch.stack(jackknife).mean(0)).square().sum(0)).sqrt()
    assert torch.allclose(errors, expected)


def test_intervals_of_a_few_examples_are_by_students_t() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    data = [(torch.randn(3, 4), torch.tensor([0, 1, 2]))]
    scores = sc.score(sc.trace(model, data), data, by="taylor-signed", progress=False)["0"]
    assert torch.allclose(scores.interval()[1] - scores.values, student_quantile(0.95, 2) * scores.errors)
