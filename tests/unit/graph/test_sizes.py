"""Batches of other sizes than those of the example that the network was traced with."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from expected_warnings import untrained_networks
from random_plans import drawn, plan_of, run, traced
from secateur.data.batch import Batch
from secateur.masking.ablation import run_masked
from secateur.surgery.verify import output_difference
from sizes import sized_images
from zoo_others import PooledByHand

pytestmark = untrained_networks


RESIZED = (
    "class token", "unet", "group norm", "time first", "cross attention", "shuffles", "routed", "repeats",
)  # fmt: skip


def larger(batch: Batch, by: int) -> Batch:
    """Random inputs whose axes behind the channels, or before the width of sequences, are longer."""

    def change(tensor: Tensor) -> Tensor:
        shape = list(tensor.shape)
        axes = range(2, tensor.dim()) if tensor.dim() > 3 else range(1, tensor.dim() - 1)
        for axis in axes:
            shape[axis] += by
        return torch.randn(shape, generator=torch.Generator().manual_seed(by)).to(tensor)

    return batch.map(change)


@pytest.mark.parametrize("name", RESIZED)
def test_the_cut_network_equals_the_masked_one_at_other_sizes(name: str) -> None:
    model, _, network = traced(name)
    kept = drawn(network, 1)
    small = sc.cut(model, plan_of(network, kept, {}))
    for by in (4, 2):
        batch = larger(network.example, by)
        assert any(a.shape != b.shape for a, b in zip(batch.tensors, network.example.tensors, strict=True))
        worst, allowed = output_difference(run_masked(network, batch, network.mask(kept), {}), run(small, batch))
        assert worst <= allowed


class CountedExports:
    """Count the exports of models."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        export = torch.export.export

        def counted(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            return export(*args, **kwargs)

        monkeypatch.setattr(torch.export, "export", counted)


def test_one_more_export_serves_all_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = PooledByHand().eval()
    network = sc.trace(model, sized_images(8)[0][0])
    exports = CountedExports(monkeypatch)
    for size in (12, 10, 7, 16, 9, 8, 12):
        batch = Batch((sized_images(size)[0][0],), {})
        assert output_difference(network.program.forward(batch), run(model, batch))[0] < 1e-5
    assert exports.count == 1


@pytest.mark.parametrize("by", ["obs", "taylor-gates", "apoz", "shapley", "leave-one-out"])
def test_scores_do_not_depend_on_the_size_of_the_example(by: str) -> None:
    torch.manual_seed(0)
    model, data = PooledByHand().eval(), sized_images(8, 12, 8, 10)
    options = {"coalitions": 40} if by == "shapley" else {}
    here, there = (
        sc.score(sc.trace(model, sized_images(size)[0][0], as_program=True), data, by=by, progress=False, **options)
        for size in (8, 12)
    )
    for name in here:
        assert torch.allclose(here[name].values, there[name].values, rtol=1e-3, atol=1e-6), name


def test_shapley_values_of_mixed_sizes_are_those_of_each_size() -> None:
    """Efficiency: the values of a group sum to what its absence costs, on examples of every size."""
    torch.manual_seed(1)
    model, data = PooledByHand().eval(), sized_images(8, 12)
    network = sc.trace(model, sized_images(8)[0][0], as_program=True)
    scores = sc.score(network, data, by="shapley", only="join", estimator="exact", aggregate="mean", progress=False)
    mask = network.mask({"join": torch.arange(0)})
    costs = []
    for x, y in data:
        batch = Batch((x,), {})
        losses = [
            F.cross_entropy(output, y, reduction="none")
            for output in (run_masked(network, batch, mask, scores.means), run(model, batch))
        ]
        costs.append(losses[0] - losses[1])
    assert float(scores["join"].values.sum()) == pytest.approx(float(torch.cat(costs).mean()), rel=1e-4, abs=1e-6)


def test_a_loader_of_mixed_sizes_is_pruned_as_each_size_says() -> None:
    """The repaired network is near the dense one at both sizes, the report's loss that of the model's own code."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), Mean())
    model, data = nn.Sequential(*model, nn.Linear(8, 4)).eval(), sized_images(8, 12, 9, 16, seed=2, examples=16)
    result = sc.prune(model, data, {"macs": 0.6}, holdout=0, progress=False)
    with torch.no_grad():
        losses = torch.cat([F.cross_entropy(result.model(x), y, reduction="none") for x, y in data])
        gaps = torch.cat([(result.model(x) - model(x)).abs().amax(1) for x, _ in data])
    assert result.report.pruned.loss == pytest.approx(float(losses.mean()), rel=1e-5)
    assert float(gaps.max()) < 0.2
    comparison = sc.compare(model, data, by=("obs", "l2"), keep={"macs": 0.6}, progress=False)
    assert {trial.by for trial in comparison.trials} == {"obs", "l2"}


def test_a_program_that_is_cut_refuses_mixed_sizes_before_any_work() -> None:
    with pytest.raises(sc.SecateurError, match=r"batch 1 of data.*a program is cut, which fixes axis 2"):
        sc.prune(PooledByHand().eval(), sized_images(8, 12), {"macs": 0.6}, as_program=True, progress=False)


class Mean(nn.Module):
    """The mean over space, by its size."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum((2, 3)) / (x.shape[2] * x.shape[3])


class Masked(nn.Module):
    """A mean over positions that a mask leaves, by the length of the sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.b((F.relu(self.a(x)) * mask[..., None]).sum(1) / x.shape[1])


def test_inputs_by_name_may_come_in_any_order_at_any_size() -> None:
    model = Masked().eval()

    def batch(length: int) -> dict[str, Tensor]:
        return {"x": torch.randn(5, length, 4), "mask": (torch.rand(5, length) > 0.3).float()}

    network = sc.trace(model, batch(6))
    other = batch(9)
    turned = Batch((), {"mask": other["mask"], "x": other["x"]})
    assert output_difference(network.program.forward(turned), run(model, turned))[0] < 1e-6


class Windows(nn.Module):
    """Pads images to a multiple of a window, again and again, as windowed attention does."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 2, 2)
        self.blocks = nn.ModuleList(nn.Conv2d(6, 6, 1) for _ in range(blocks))
        self.fc = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            height, width = x.shape[2:]
            y = F.pad(x, (0, 3 - width % 3, 0, 3 - height % 3))
            b, c, h, w = y.shape
            y = y.view(b, c, h // 3, 3, w // 3, 3).permute(0, 2, 4, 1, 3, 5).reshape(-1, c, 3, 3)
            y = F.relu(block(y - y.mean((2, 3), keepdim=True)))
            y = y.view(b, h // 3, w // 3, c, 3, 3).permute(0, 3, 1, 4, 2, 5).reshape(b, c, h, w)
            x = F.avg_pool2d(x + y[:, :, :height, :width], 2)
        return self.fc(x.mean((2, 3)))


def test_sizes_that_are_too_complex_to_vary_take_an_export_each(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = Windows(3).eval()
    network = sc.trace(model, sized_images(32)[0][0])
    exports = CountedExports(monkeypatch)
    for size in (44, 50, 44):
        batch = Batch((sized_images(size)[0][0],), {})
        assert output_difference(network.program.forward(batch), run(model, batch))[0] < 1e-5
    assert exports.count == 3


class PaddedToMultiples(nn.Module):
    """Pads images to a multiple of the window and of the stride and crops them: nothing happens at some sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.down, self.fc = nn.Conv2d(8, 6, 2, 2), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        h = F.relu(self.stem(x))
        y = F.pad(h, (0, -width % 4, 0, -height % 4))
        b, c, tall, wide = y.shape
        y = y.view(b, c, tall // 4, 4, wide // 4, 4).mean((2, 4), keepdim=True) + y.view(
            b, c, tall // 4, 4, wide // 4, 4
        )
        y = y.reshape(b, c, tall, wide)[:, :, :height, :width].contiguous()
        y = F.relu(self.mix(y + h))
        y = F.relu(self.down(F.pad(y, (0, width % 2, 0, height % 2))))
        return self.fc(y.sum((2, 3)) / (y.shape[2] * y.shape[3]))


@pytest.mark.parametrize("traced", [8, 9, 10])
def test_padding_that_some_sizes_do_without(traced: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = PaddedToMultiples().eval()
    network = sc.trace(model, sized_images(traced)[0][0])
    assert {group.name: group.size for group in network.groups} == {"stem": 6, "mix": 8, "down": 6}
    kept = drawn(network, 2)
    small = sc.cut(model, plan_of(network, kept, {}))
    exports = CountedExports(monkeypatch)
    for size in (12, 8, 9, 10, 11, 16, 13):
        batch = Batch((sized_images(size)[0][0],), {})
        worst, allowed = output_difference(run_masked(network, batch, network.mask(kept), {}), run(small, batch))
        assert worst <= allowed, size
    assert exports.count <= 8
