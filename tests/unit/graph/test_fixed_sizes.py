"""Sizes that a model's code fixes, remembers, or takes other ways for."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import secateur as sc
from expected_warnings import untrained_networks
from random_plans import run
from secateur.data.batch import Batch
from secateur.graph.program import Program
from secateur.surgery.verify import output_difference
from sizes import sized_images
from zoo_others import PooledByHand

pytestmark = untrained_networks


class Branches(nn.Module):
    """Takes another way for large images, and for single examples."""

    def __init__(self, single: bool) -> None:
        super().__init__()
        self.single = single
        self.a, self.b, self.c = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.a(x))
        if not self.single and h.shape[2] > 10:
            h = F.relu(self.b(h))
        if self.single and h.shape[0] != 1:
            h = h * 2
        return self.c(h.mean((2, 3)))


def test_a_size_that_takes_another_way_through_the_code_is_refused() -> None:
    network = sc.trace(Branches(single=False).eval(), sized_images(8)[0][0])
    network.program.forward(Batch((sized_images(9)[0][0],), {}))
    with pytest.raises(sc.SecateurError, match=r"\(8, 3, 12, 12\) where the network was traced with \(2, 3, 8, 8\)"):
        network.program.forward(Batch((sized_images(12)[0][0],), {}))


def test_one_example_that_takes_another_way_is_refused() -> None:
    network = sc.trace(Branches(single=True).eval(), sized_images(8)[0][0])
    with pytest.raises(sc.SecateurError, match=r"\(1, 3, 8, 8\)"):
        network.program.forward(Batch((sized_images(8, examples=1)[0][0],), {}))


def test_an_input_that_is_no_tensor_and_another_is_not_taken_for_the_same() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
            return self.b(F.relu(self.a(x)) * scale)

    model, x = Scaled().eval(), torch.randn(6, 4)
    network = sc.trace(model, {"x": x, "scale": 1.0})
    other = Batch((), {"x": x, "scale": 3.0})
    assert output_difference(network.program.forward(other), run(model, other))[0] < 1e-6


def test_a_program_without_a_model_refuses_other_sizes() -> None:
    network = sc.trace(PooledByHand().eval(), sized_images(8)[0][0])
    program = Program(network.program.exported, network.program.batched, network.program.names)
    with pytest.raises(sc.SecateurError, match="fixes axis 2 of that input at 8"):
        program.forward(Batch((sized_images(12)[0][0],), {}))


class FixedViews(nn.Module):
    """A batch size in the code, as recurrent and detection code has it."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.embed, self.gru, self.fc = nn.Linear(5, 8), nn.GRU(8, 6, batch_first=True), nn.Linear(6, 3)
        self.register_buffer("h0", torch.zeros(1, size, 6))

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.embed(x).view(self.size, 4, -1))
        return self.fc(self.gru(h, self.h0)[0][:, -1])


@pytest.mark.parametrize("size", [1, 48])
def test_a_batch_size_in_the_code_works_in_every_stage(size: int) -> None:
    torch.manual_seed(0)
    model = FixedViews(size).eval()
    data = [(torch.randn(size, 4, 5), torch.randint(0, 3, (size,))) for _ in range(8)]
    result = sc.prune(model, data, {"params": 0.7}, repair=("refit", "adapt", "tune"), holdout=0, progress=False)
    assert result.plan.cost.params < result.plan.dense.params
    assert result.report.examples == 8 * size
    for by in ("shapley", "taylor-gates", "leave-one-out", "apoz"):
        options = {"coalitions": 20} if by == "shapley" else {}
        scores = sc.score(result.plan.network, data, by=by, progress=False, **options)
        assert all(torch.isfinite(scores[name].values).all() for name in scores), by


def test_a_data_set_is_batched_as_the_code_asks_and_a_shorter_batch_is_refused() -> None:
    network = sc.trace(FixedViews(48).eval(), torch.randn(48, 4, 5))
    whole = TensorDataset(torch.randn(96, 4, 5), torch.randint(0, 3, (96,)))
    assert sc.score(network, whole, by="apoz", progress=False)
    with pytest.raises(sc.SecateurError, match=r"\(4, 4, 5\).*drop_last"):
        sc.score(network, TensorDataset(torch.randn(100, 4, 5)), by="apoz", progress=False)


class Head(nn.Module):
    """Makes its grid anew only where the features have another shape than the last ones, as detection heads do."""

    def __init__(self, *, by_class: bool = False, whole_shape: bool = True, by_grid: bool = False) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 4, 1)
        self.whole_shape, self.by_grid = whole_shape, by_grid
        self.grid = torch.empty(0)
        if not by_class:
            self.shape: Any = None

    def forward(self, x: Tensor) -> Tensor:
        y = self.c(F.relu(self.b(F.relu(self.a(x)))))
        shape = y.shape if self.whole_shape else y.shape[2:]
        if (self.grid.shape if self.by_grid else self.shape) != shape:
            self.shape = shape
            self.grid = torch.arange(y.shape[2] * y.shape[3]).float().view(1, 1, *y.shape[2:])
            self.grid = self.grid.expand(y.shape) if self.by_grid else self.grid
        return (y + self.grid).flatten(2)


class ClassHead(Head):
    shape = None


@pytest.mark.parametrize("seen", [None, 2, 3])
@pytest.mark.parametrize(
    "make",
    [
        Head,
        lambda: Head(whole_shape=False),
        lambda: Head(by_grid=True),
        lambda: ClassHead(by_class=True),
    ],
    ids=["shape", "height and width", "grid", "class"],
)
def test_a_head_that_remembers_the_last_shape_is_exported_as_if_it_had_seen_none(make: Any, seen: int | None) -> None:
    torch.manual_seed(0)
    model = make().eval()
    if seen is not None:
        model(torch.randn(seen, 3, 8, 8))
    before = dict(vars(model))
    network = sc.trace(model, torch.randn(3, 3, 8, 8))
    assert {name: id(value) for name, value in vars(model).items()} == {name: id(v) for name, v in before.items()}
    assert network.program.batched is not None
    assert {group.name: group.size for group in network.groups} == {"a": 8, "b": 8}
    for shape in ((3, 3, 8, 8), (1, 3, 8, 8), (2, 3, 8, 8), (5, 3, 12, 8)):
        batch = Batch((torch.randn(shape),), {})
        assert output_difference(network.program.forward(batch), run(model, batch))[0] < 1e-5
