"""Block reconstruction solves only for weights of which the examples say enough."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import ShapeEnv

import secateur as sc
from secateur.data.batch import Batch
from secateur.errors import SecateurWarning
from secateur.recovery import block_reconstruction, chain
from secateur.recovery.adapt_rows import FEWEST_EQUATIONS, counted_examples, equations_per_weight, few_equations
from secateur.recovery.reconstruction_layers import reconstruction_blocks


def perceptron() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)).eval()


class TokenScores(nn.Module):
    """A layer on each token of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.up, self.down = nn.Embedding(7, 4), nn.Linear(4, 8), nn.Linear(8, 7)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.down(torch.relu(self.up(self.embed(tokens))))


class FoldedRows(nn.Module):
    """The same layers on each token, whatever the axes of the rows are."""

    def __init__(self, is_folded: bool) -> None:
        super().__init__()
        self.layers, self.is_folded = perceptron(), is_folded

    def forward(self, x: Tensor) -> Tensor:
        rows: Tensor = self.layers(x.reshape(-1, x.shape[-1]) if self.is_folded else x)
        return rows.reshape(*x.shape[:-1], 3)


class SharedFirst(nn.Module):
    """A first input of one size for all examples."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = perceptron()

    def forward(self, shift: Tensor, x: Tensor) -> Tensor:
        scores: Tensor = self.layers(x + shift)
        return scores


def test_equations_are_outputs_at_rows() -> None:
    """Half of 16 units: two layers and their consumers, with constants; each output at each row is an equation."""
    model, x = perceptron(), torch.randn(2, 6)
    network = sc.trace(model, x)
    mask = network.mask({"0": torch.arange(8), "2": torch.arange(4)})
    first, second = reconstruction_blocks(network)
    weights = 8 * (6 + 1) + 4 * (8 + 1) + 3 * (4 + 1)
    assert equations_per_weight(first, mask, 10, network.program) == pytest.approx(10 * (4 + 3) / weights)
    assert equations_per_weight(second, mask, 10, network.program) == pytest.approx(
        10 * 3 / (4 * (8 + 1) + 3 * (4 + 1))
    )


def planned_perceptron(examples: int) -> tuple[nn.Module, sc.Plan, Tensor]:
    """Return a perceptron, a plan for three fifths of its MACs, and examples."""
    model = perceptron()
    x = torch.randn(examples, 6, generator=torch.Generator().manual_seed(1))
    network = sc.trace(model, x)
    scores = sc.score(network, [x], by="l2", progress=False)
    return model, sc.plan(network, scores, {"macs": 0.6}, progress=False), x


def test_longer_sequences_count_for_more() -> None:
    """Every token is a row, also where sequences are longer than that of the trace."""
    network = sc.trace(TokenScores(), torch.zeros(2, 5, dtype=torch.long))
    short, long = (Batch((torch.zeros(4, length, dtype=torch.long),), {}) for length in (5, 15))
    assert counted_examples(network.program, [short]) == 4
    assert counted_examples(network.program, [short, long]) == 16
    block = next(iter(reconstruction_blocks(network)))
    mask = network.mask({})
    assert equations_per_weight(block, mask, 4, network.program) == pytest.approx(
        4 * 5 * 7 / (8 * (4 + 1) + 7 * (8 + 1))
    )


def test_adapt_is_left_out_where_no_layer_has_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not tried, the warning says what would do, and refit is done as where nothing follows."""
    model, plan, x = planned_perceptron(16)
    monkeypatch.setattr(block_reconstruction, "BlockProblem", lambda *_: pytest.fail("solved"))
    with pytest.warns(SecateurWarning) as caught:
        both = sc.repair(sc.cut(model, plan), model, plan, [x], ("refit", "adapt"), progress=False)
    texts = [str(warning.message) for warning in caught]
    assert any(text.startswith("adapt was left out: the examples give at most") for text in texts)
    with pytest.warns(SecateurWarning):
        alone = sc.repair(sc.cut(model, plan), model, plan, [x], "refit", progress=False)
    assert all(torch.equal(a, b) for a, b in zip(both.parameters(), alone.parameters(), strict=True))


def test_the_number_of_examples_that_would_do_is_right() -> None:
    network = sc.trace(perceptron(), torch.randn(2, 6))
    mask = network.mask({})
    some = [Batch((torch.randn(4, 6),), {})]
    text = few_equations(network, mask, some)
    times = float(text.partition("with ")[2].split()[0])
    blocks = reconstruction_blocks(network)
    most = max(equations_per_weight(block, mask, 4 * times, network.program) for block in blocks)
    assert most == pytest.approx(FEWEST_EQUATIONS, rel=0.05)
    assert few_equations(network, mask, [Batch((torch.randn(4 * 100, 6),), {})]) == ""


@pytest.mark.parametrize("is_folded", [False, True])
@pytest.mark.parametrize("batch_axis", [0, 1])
def test_equations_count_rows_along_any_axis(is_folded: bool, batch_axis: int) -> None:
    """20 tokens of each of 30 examples are 600 rows: with tokens in the first axis, and with examples in another."""
    x = torch.randn(30, 20, 6).transpose(0, batch_axis)
    network = sc.trace(FoldedRows(is_folded).eval(), x.narrow(batch_axis, 0, 2))
    batches, mask = [Batch((x,), {})], network.mask({})
    first = next(iter(reconstruction_blocks(network)))
    equations = equations_per_weight(first, mask, counted_examples(network.program, batches), network.program)
    assert equations == pytest.approx(600 * (16 + 3) / (16 * 7 + 16 * 17 + 3 * 17))
    assert few_equations(network, mask, batches) == ""


def test_an_input_that_all_examples_share_does_not_hide_their_number() -> None:
    network = sc.trace(SharedFirst().eval(), (torch.randn(1, 6), torch.randn(2, 6)))
    first = next(iter(reconstruction_blocks(network)))
    examples = counted_examples(network.program, [Batch((torch.randn(1, 6), torch.randn(30, 6)), {})])
    equations = equations_per_weight(first, network.mask({}), examples, network.program)
    assert equations == pytest.approx(30 * (16 + 3) / (16 * 7 + 16 * 17 + 3 * 17))


def test_an_unknown_number_of_rows_does_not_leave_adapt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of the tokens which the values select."""
    network = sc.trace(perceptron(), torch.randn(2, 6))
    batches = [Batch((torch.randn(4, 6),), {})]
    assert few_equations(network, network.mask({}), batches)
    unknown = ShapeEnv().create_unbacked_symint()
    for block in reconstruction_blocks(network):
        for layer in block.consumers:
            monkeypatch.setitem(layer.node.meta, "val", SimpleNamespace(shape=(unknown, len(layer.outputs))))
    assert few_equations(network, network.mask({}), batches) == ""


def test_equations_are_counted_only_for_adapt(monkeypatch: pytest.MonkeyPatch) -> None:
    model, plan, x = planned_perceptron(64)
    monkeypatch.setattr(chain, "few_equations", lambda *_: pytest.fail("counted"))
    with warnings.catch_warnings(action="ignore", category=SecateurWarning):
        sc.repair(sc.cut(model, plan), model, plan, [x], "refit", progress=False)
