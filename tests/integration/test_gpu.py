"""The same laws on an accelerator: everything is computed where the model is, and the CPU agrees."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from expected_warnings import untrained_networks
from random_plans import drawn, plan_of, run
from secateur.data.conversion import example_batches
from secateur.importance.registry import criteria
from secateur.masking.ablation import run_masked
from secateur.masking.unit_means import consumer_means
from secateur.sparsity.lean import lean
from secateur.sparsity.pivoting.pivot import pivot
from secateur.sparsity.spp.spp import SPP
from secateur.sparsity.unification.unification import Unification
from secateur.surgery.verify import output_difference
from secateur.training.taylor_schedule import TaylorSchedule
from secateur.utils.devices import comparable_arithmetic
from zoo import ZOO, grow

pytestmark = [
    untrained_networks,
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
GPU = torch.device("cuda")
SLOW = ("greedy", "oracle")


@pytest.fixture
def exact_products() -> Any:
    """TF32, the default of convolutions, rounds products to ten bits; the CPU does not."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 24, 3, padding=1),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(96, 32),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Linear(32, 5),
    ).eval()


def images(number: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(number, 3, 12, 12, generator=generator), torch.randint(5, (number,), generator=generator)


def moved(example: Any, device: torch.device) -> Any:
    return torch.utils._pytree.tree_map(lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, example)


@pytest.mark.parametrize("name", list(ZOO))
def test_every_network_of_the_zoo_is_cut_on_the_device(name: str) -> None:
    model, example = grow(name)
    on_cpu = sc.trace(model, example, **ZOO[name].options)
    model, example = grow(name)[0].to(GPU), moved(example, GPU)
    network = sc.trace(model, example, **ZOO[name].options)
    assert {group.name: group.size for group in network.groups} == {g.name: g.size for g in on_cpu.groups}
    if not network.groups:
        return
    batches = example_batches(example, GPU)
    means = consumer_means(network, batches[:1])
    kept = drawn(network, 5)
    small = sc.cut(model, plan_of(network, kept, means))  # cut itself compares the two by itself, TF32 or not
    assert {tensor.device.type for tensor in small.state_dict().values()} <= {"cuda"}
    with comparable_arithmetic():
        masked = run_masked(network, network.example, network.mask(kept), means)
        worst, allowed = output_difference(run(small, network.example), masked)
    assert worst <= allowed


@pytest.mark.parametrize("by", [name for name in criteria() if name not in SLOW])
def test_scores_on_the_device_are_those_of_the_cpu(by: str, exact_products: None) -> None:
    model = classifier()
    options = {"coalitions": 64} if "coalitions" in criteria()[by].options else {}
    scores = {}
    for device in ("cpu", "cuda"):
        network = sc.trace(copy.deepcopy(model).to(device), torch.randn(2, 3, 12, 12, device=device))
        scores[device] = sc.score(network, images(32), by=by, seed=1, progress=False, **options)
    for group in scores["cpu"]:
        there, here = scores["cuda"][group].values, scores["cpu"][group].values
        assert there.device.type == "cpu"
        assert (there - here).abs().max() <= 2e-4 * here.abs().max() + 1e-7, group


def test_prune_on_the_device_agrees_with_the_cpu_and_loads_on_either(tmp_path: Path, exact_products: None) -> None:
    model, data, test = classifier(), images(64)[0], images(64, 1)[0]
    small = {}
    for device in ("cpu", "cuda"):
        result = sc.prune(copy.deepcopy(model).to(device), data, {"macs": 0.5}, target="any", progress=False)
        small[device] = result.model
        result.save(tmp_path / device)
    assert {tensor.device.type for tensor in small["cuda"].state_dict().values()} == {"cuda"}
    for key, tensor in small["cpu"].state_dict().items():
        assert tensor.shape == small["cuda"].state_dict()[key].shape, key
    with torch.no_grad():
        here, there = small["cpu"](test), small["cuda"](test.to(GPU)).cpu()
    assert (here - there).abs().max() <= 2e-2 * here.abs().max()
    for saved in ("cpu", "cuda"):
        for device in ("cpu", "cuda"):
            loaded = sc.load(classifier().to(device), tmp_path / saved)
            with torch.no_grad():
                output = loaded(test.to(device))
            assert output.device.type == device
            assert (
                output.cpu() - small[saved](test.to(next(small[saved].parameters()).device)).cpu()
            ).abs().max() < 1e-4


def test_the_state_of_the_device_is_left_as_it_was() -> None:
    model = classifier().to(GPU)
    torch.cuda.manual_seed(7)
    before = torch.cuda.get_rng_state(), torch.get_rng_state()
    sc.prune(model, images(32)[0].to(GPU), {"macs": 0.6}, progress=False)
    assert torch.equal(before[0], torch.cuda.get_rng_state())
    assert torch.equal(before[1], torch.get_rng_state())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_in_its_type(dtype: torch.dtype) -> None:
    model = classifier().to(GPU, dtype)
    result = sc.prune(model, images(32)[0].to(GPU, dtype), {"macs": 0.6}, progress=False)
    assert {tensor.dtype for tensor in result.model.parameters()} == {dtype}


def test_a_latency_budget_is_measured_on_the_device() -> None:
    model = nn.Sequential(nn.Linear(64, 8192), nn.ReLU(), nn.Linear(8192, 8192), nn.ReLU(), nn.Linear(8192, 8)).to(GPU)
    data = [torch.randn(512, 64)]  # one batch, large enough for the products to take more time than their launches
    result = sc.prune(model, data, {"latency": 0.7}, by="l2", repair=(), progress=False)
    assert result.plan.cost.macs < result.plan.dense.macs


def test_memory_limits_hold_on_the_device() -> None:
    network = sc.trace(classifier().to(GPU), torch.randn(2, 3, 12, 12, device=GPU))
    options = {"coalitions": 32, "seed": 3, "progress": False}
    much, little = (sc.score(network, images(16), **options, memory=memory) for memory in (1 << 28, 1 << 22))
    for group in much:  # batches of other sizes run other kernels, so bits differ
        assert torch.allclose(much[group].values, little[group].values, rtol=1e-2, atol=1e-5)


def test_repairs_run_on_the_device() -> None:
    model = classifier().to(GPU)
    network = sc.trace(model, torch.randn(2, 3, 12, 12, device=GPU))
    data = images(64)[0]
    plan = sc.plan(network, sc.score(network, data, by="obs", progress=False), keep={"macs": 0.5})
    for repair in ("batchnorm", "refit", "adapt", "tune"):
        repaired = sc.repair(sc.cut(model, plan), model, plan, data, repair, progress=False)
        assert {tensor.device.type for tensor in repaired.state_dict().values()} == {"cuda"}, repair


def step_towards_labels(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    inputs, labels = images(32)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(inputs.to(GPU)), labels.to(GPU)).backward()
    optimizer.step()


def learner() -> tuple[nn.Module, torch.optim.Optimizer, Tensor]:
    model = classifier().to(GPU).train()
    return model, torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9), torch.randn(2, 3, 12, 12, device=GPU)


def test_the_schedule_of_taylor_trains_on_the_device() -> None:
    model, optimizer, example = learner()
    schedule = TaylorSchedule(model, example, optimizer, {"units": 0.8}, every=2, units_per_step=4)
    while not schedule.is_finished:
        step_towards_labels(model, optimizer)
    assert {tensor.device.type for tensor in schedule.cut().parameters()} == {"cuda"}


def test_columns_are_pruned_on_the_device() -> None:
    model, optimizer, example = learner()
    spp = SPP(model, example, optimizer, {"columns": 0.5}, every=1)
    while not spp.is_finished:
        step_towards_labels(model, optimizer)
    assert {tensor.device.type for tensor in spp.finish().model.parameters()} == {"cuda"}


def test_blocks_are_unified_on_the_device() -> None:
    model, optimizer, _ = learner()
    blocks = Unification(model, optimizer, pruned=0.5, unified=0.4, every=2)
    for _ in range(4):
        step_towards_labels(model, optimizer)
    blocks.harden()
    step_towards_labels(model, optimizer)
    assert all(torch.equal(projection.labels, projection.labels.cpu()) for projection in blocks.layers)


def test_weights_are_pivoted_on_the_device() -> None:
    model, _, example = learner()
    model.eval()
    pivoted = pivot(model, example, 0.5, shape=(4, 4))
    packed, _ = pivoted.packed(example)
    with torch.no_grad():
        assert (packed(example) - pivoted.model(example)).abs().max() < 1e-4


def test_kernels_on_no_chain_go_on_the_device() -> None:
    model, _, example = learner()
    pruned = lean(model.eval(), example, 0.5)
    assert pruned.model(example).device.type == "cuda"
