"""Batches of other sizes than those of the example that the network was traced with."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from counted_exports import CountedExports
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
