"""Scores do not depend on how the examples are grouped into batches."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur.data.batch import Batch
from secateur.data.regrouping import regrouped_batches
from secateur.importance import context

EXAMPLES = 36  # more than a microbatch
GROUPINGS = ([EXAMPLES], [8, 26, 2], [1] * EXAMPLES)
OPTIONS = {
    "shapley": {"coalitions": 16},
    "owen": {"coalitions": 16},
    "banzhaf": {"coalitions": 16},
    "expected-gradients": {"coalitions": 16},
}
EXAMPLE_SQUARES = "taylor-gates-examples"
WITHOUT_GRADIENT_AT_THE_DENSE_NETWORK = ("sensitivity", "taylor")  # where there are neither labels nor classes


def data_by(sizes: Sequence[int], x: Tensor, targets: Tensor | None) -> list[Tensor] | list[tuple[Tensor, Tensor]]:
    if targets is None:
        return list(x.split(list(sizes)))
    return list(zip(x.split(list(sizes)), targets.split(list(sizes)), strict=True))


def network_of(last: nn.Module | None, outputs: int) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(4).double().eval()
    layers = [nn.Linear(3, 4), norm, nn.ReLU(), nn.Linear(4, outputs), *([] if last is None else [last])]
    x = torch.randn(EXAMPLES, 3, dtype=torch.float64) * torch.linspace(0.2, 4, EXAMPLES)[:, None]
    return nn.Sequential(*layers).double().eval(), x


CASES = {
    "classes": (None, 5, None),
    "labels": (None, 5, torch.arange(EXAMPLES) % 5),
    "regression": (None, 1, None),
    "activations": (nn.Sigmoid(), 5, None),
}


@pytest.mark.parametrize("by", [name for name, entry in sc.criteria().items() if not entry.facts.has_minibatches])
@pytest.mark.parametrize("case", CASES)
def test_scores_are_the_same_for_any_grouping(case: str, by: str) -> None:
    last, outputs, targets = CASES[case]
    model, x = network_of(last, outputs)
    if by == "lean" or (outputs == 1 and by.startswith(WITHOUT_GRADIENT_AT_THE_DENSE_NETWORK)):
        pytest.skip("needs no examples, or labels")
    network = sc.trace(model, x)
    options = OPTIONS.get(by, {})
    first, *others = (
        sc.score(network, data_by(sizes, x, targets), by=by, seed=1, progress=False, **options)["0"].values
        for sizes in GROUPINGS
    )
    for scores in others:
        torch.testing.assert_close(scores, first, rtol=1e-9, atol=1e-12)


def test_small_batches_stay_apart_where_a_pass_on_more_takes_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = network_of(None, 5)
    network = sc.trace(model, x)
    batches = [Batch((pair,), {}) for pair in x.split(2)]
    assert [batch.size for batch in context.network_microbatches(network, batches)] == [32, 4]
    monkeypatch.setattr(context, "JOINED_BYTES", 1000)
    assert [batch.size for batch in context.network_microbatches(network, batches)] == [2] * 18


def test_only_neighbours_of_one_form_are_joined() -> None:
    x = torch.arange(20.0).view(10, 2)
    batches = [
        Batch((x[:3],), {}, torch.arange(3)),
        Batch((x[3:5],), {}, torch.arange(2)),
        Batch((x[5:6],), {}),  # no targets
        Batch((x[6:7],), {}, torch.tensor(1.0)),  # one target for all
        Batch((x[7:8],), {"scale": 2.0}),
        Batch((x[8:9],), {"scale": 2.0}),
        Batch((x[9:10],), {"scale": 3.0}),
    ]
    regrouped = regrouped_batches(batches, 4)
    assert [batch.size for batch in regrouped] == [4, 1, 1, 1, 2, 1]
    assert torch.equal(torch.cat([batch.args[0] for batch in regrouped]), x)
    assert torch.equal(regrouped[0].target, torch.tensor([0, 1, 2, 0]))


def test_minibatches_are_the_batches_of_the_data() -> None:
    """Squares of means depend on the number of examples in the mean, by definition."""
    model, x = network_of(None, 5)
    network = sc.trace(model, x)
    in_two, in_one, examples = (
        sc.score(network, data, by=by, progress=False)["0"].values
        for data, by in ((list(x.split(18)), "taylor-gates"), (list(x.split(1)), "taylor-gates"), (x, EXAMPLE_SQUARES))
    )
    assert not torch.allclose(in_two, in_one)
    torch.testing.assert_close(in_one, examples)


def test_paths_are_measured_against_the_outputs_of_all_examples() -> None:
    """A microbatch of small outputs had another measure than one of large ones."""
    model, x = network_of(None, 1)
    network = sc.trace(model, x)
    scores, reversed_scores = (
        sc.score(network, data, by="integrated-gradients", progress=False)["0"].values for data in (x, x.flip(0))
    )
    torch.testing.assert_close(reversed_scores, scores, rtol=1e-9, atol=1e-12)
