"""Single operators: weights that differ between coalitions, and operators that cannot lose units."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from secateur.coupling.labels import labelled_axes
from secateur.coupling.trace_groups import trace_groups
from secateur.data.batch import Batch
from secateur.graph.export import export_program
from secateur.masking.ablation import MeanAblation, run_masked
from secateur.surgery.trial_cut import TrialCutter
from zoo import grow


class Frozen(nn.Module):
    """One operator between two layers."""

    def __init__(self, operator: str) -> None:
        super().__init__()
        self.operator, self.first, self.last = operator, nn.Linear(4, 6), nn.LazyLinear(2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.first(x))
        index = torch.tensor([0, 2, 1])
        if self.operator == "index_add":
            return self.last(x.index_add(-1, index, x[..., :3]))
        if self.operator == "index_put":
            return self.last(torch.ops.aten.index_put(x, [None, None, index], x.new_tensor(0.5)))
        if self.operator == "index_fill":
            return self.last(x.index_fill(-1, index, 0.5))
        if self.operator == "fft_rfft":
            return self.last(torch.fft.rfft(x, dim=-1).abs())
        if self.operator == "diff":
            return self.last(torch.diff(x))
        return self.last(x.scatter(-1, index[:2].expand(x.shape[0], x.shape[1], -1), 0.3))


@pytest.mark.parametrize("operator", ["index_add", "index_put", "index_fill", "fft_rfft", "diff", "scatter"])
def test_what_can_not_be_cut_names_the_operator(operator: str) -> None:
    model, x = Frozen(operator).eval(), torch.randn(3, 5, 4)
    model(x)
    network = sc.trace(model, x)
    assert not network.groups
    (frozen,) = [frozen for frozen in network.frozen if frozen.name == "first"]
    assert frozen.operator == operator
    assert "report" not in frozen.reason


@pytest.mark.parametrize("name", ["weights of length 1", "standard weights"])
def test_computed_weights_are_those_of_each_coalition(name: str) -> None:
    """Several coalitions in one batch give what each gives alone."""
    model, _ = grow(name)
    _, example = grow(name, seed=3)
    network = sc.trace(model, example)
    x = network.example.args[0]
    masks = torch.stack(
        [network.mask({group.name: torch.arange(1 + at) for group in network.groups}) for at in (0, 2, 3)]
    )
    with torch.no_grad():
        stacked = network.program.forward(
            Batch((x.repeat(3, *[1] * (x.dim() - 1)),), {}), MeanAblation({}).handlers(network, masks)
        )
    for mask, output in zip(masks, stacked.chunk(3), strict=True):
        alone = run_masked(network, network.example, mask, {})
        assert torch.allclose(output, alone, atol=1e-6)
    assert not torch.allclose(*stacked.chunk(3)[:2])


def test_weights_of_a_coalition_have_gradients() -> None:
    """A gate on an input of a standardised weight changes the weight, too."""
    model, example = grow("standard weights")
    network = sc.trace(model, example)
    gates = torch.ones(1, network.units + 1, requires_grad=True)
    handlers = MeanAblation({}).handlers(network, gates)
    (slope,) = torch.autograd.grad(network.program.forward(network.example, handlers).sum(), gates)
    step = 1e-3
    unit = network["first"].offset
    moved = gates.detach().clone().double()
    moved[0, unit] -= step
    with torch.no_grad():
        less, whole = (
            network.program.forward(network.example, MeanAblation({}).handlers(network, mask)).double().sum()
            for mask in (moved, gates.detach())
        )
    assert float((whole - less) / step) == pytest.approx(float(slope[0, unit]), rel=0.05, abs=1e-3)


def test_distances_between_one_kind_of_rows() -> None:
    """Distances of activations to themselves along the units' axis: rows of both are the same tokens."""
    first, last = nn.Linear(4, 6), nn.Linear(5, 2)

    class Near(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = first, last

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.last(torch.cdist(x, x, p=1.0))

    network = sc.trace(Near().eval(), torch.randn(3, 5, 4))
    assert {group.name: group.size for group in network.groups} == {"first": 6}


def test_code_that_counts_units_otherwise_is_named() -> None:
    """Code that runs on the cut shape and gives something else is named, with the operator that it counts in."""

    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 16), nn.Linear(16, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = F.silu(self.first(x))
            return self.last(x.view(-1, 4, x.shape[1] // 4).transpose(1, 2).reshape(x.shape))

    model, example = Counted().eval(), Batch((torch.randn(3, 4),), {})
    network = trace_groups(model, example, export_program(model, example))
    assert [group.name for group in network.groups] == ["first"]
    failure = TrialCutter(model).run(network, {"first": torch.arange(2)}, {})
    assert failure is not None
    assert "does not follow the cut in reshape in Counted" in failure.reason
    assert "report" not in failure.reason


@pytest.mark.parametrize("by", ["taylor-weights-second", "taylor-gates-second"])
def test_operators_without_a_second_derivative_are_named(by: str) -> None:
    """torch has none of the CTC loss; those of other operators come with its versions."""

    def loss(output: Tensor, target: None) -> Tensor:
        count, length = len(output), output.shape[1]
        tokens, lengths = torch.ones(count, 2, dtype=torch.long), torch.full((count,), length)
        log_probabilities = output.log_softmax(2).transpose(0, 1)  # (time, batch, tokens)
        return F.ctc_loss(log_probabilities, tokens, lengths, torch.full((count,), 2), reduction="none")

    example = torch.randn(3, 5, 4)
    network = sc.trace(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).eval(), example)
    with pytest.raises(sc.SecateurError, match=r"_ctc_loss_backward.*rank by the criterion of first order"):
        sc.score(network, [example], by=by, loss=loss, progress=False)


def test_one_example_of_several_inputs_whose_batches_the_export_tells_apart() -> None:
    """The number of bags is counted from the entries, so the export has a size of its own for each input's batch."""
    model, (dense, sparse) = grow("bags")
    network = sc.trace(model, (dense, sparse))
    everything = network.mask({})
    both = run_masked(network, Batch((dense, sparse), {}), everything, {})
    one = run_masked(network, Batch((dense[:1], sparse[:1]), {}), everything, {})
    assert torch.allclose(one, both[:1], atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 1, 4), (2, 3), (4,), (), (0, 3)], ids=str)
def test_axes_along_which_labels_of_operators_differ(shape: tuple[int, ...]) -> None:
    """A difference away from the origin counts as well; two axes may differ only together."""
    labels = torch.zeros(shape, dtype=torch.long)
    assert labelled_axes(labels) == set()
    for dim, length in enumerate(shape):
        steps = torch.arange(length).view([-1 if other == dim else 1 for other in range(len(shape))])
        assert (
            labelled_axes(labels + steps)
            == labelled_axes(steps.expand(shape))
            == ({dim} if labels.numel() and length > 1 else set())
        )
    if labels.numel():
        corner = labels.clone()
        corner[tuple(length - 1 for length in shape)] = 1
        assert labelled_axes(corner) == {dim for dim, length in enumerate(shape) if length > 1}
