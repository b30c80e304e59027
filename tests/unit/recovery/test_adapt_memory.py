"""The memory of block reconstruction: what is told before it starts is what it takes."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

import secateur as sc
from expected_warnings import untrained_networks
from live_bytes import LiveBytes
from secateur.data.batch import Batch
from secateur.data.conversion import as_batches
from secateur.graph.value_bytes import live_bytes_by_position
from secateur.importance.context import split_microbatches
from secateur.recovery import adapt_memory, adapt_rows, chain
from secateur.recovery.adapt_memory import adapt_bytes, adapt_shortage
from secateur.recovery.block_reconstruction import reconstruct_blocks
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.paired_run import PairedExecution
from secateur.recovery.reconstruction_layers import reconstruction_blocks
from secateur.recovery.reconstruction_terms import SharedTargets
from secateur.surgery.recipe import recipe_of
from secateur.utils import mapped_tensors

pytestmark = untrained_networks


def subject(width: int, rows: int) -> tuple[nn.Module, sc.Plan, torch.Tensor]:
    """Return a network of wide layers, a plan that removes a quarter of its units, and examples."""
    torch.manual_seed(0)
    layers = [nn.Linear(24, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 8)]
    model, data = nn.Sequential(*layers).eval(), torch.randn(rows, 24)
    network = sc.trace(model, data[:2])
    return model, sc.plan(network, sc.score(network, by="l2", ablation="zero"), {"units": 0.75}), data


@pytest.mark.parametrize(("width", "rows"), [(512, 8), (256, 600)])
def test_block_reconstruction_takes_the_memory_that_is_told(
    width: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With few rows, which are kept for the preconditioner, and with many, whose products are factored."""
    monkeypatch.setattr(mapped_tensors, "ROOM", 0)
    monkeypatch.setattr(adapt_rows, "FEWEST_EQUATIONS", 0.0)  # so that few rows are solved for, too
    model, plan, data = subject(width, rows)
    cut_network = EmbeddedPrunedNetwork.of(sc.cut(model, plan), plan.network, recipe_of(model, plan))
    microbatches = split_microbatches(as_batches(list(data.split(100))), torch.device("cpu"))
    with LiveBytes() as live, torch.no_grad():
        reconstruct_blocks(PairedExecution(cut_network, microbatches))
    predicted = adapt_bytes(plan.network, cut_network.mask)
    assert 0.5 * predicted < live.peak < 1.2 * predicted


def test_adapt_is_left_out_where_memory_is_short_and_the_refit_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapt_rows, "FEWEST_EQUATIONS", 0.0)
    model, plan, data = subject(32, 64)
    needed = adapt_bytes(plan.network, plan.network.mask(plan.kept))
    assert adapt_shortage(plan.network, plan.network.mask(plan.kept), needed) == ""
    monkeypatch.setattr(adapt_memory, "available_bytes", lambda _: needed - 1)
    with pytest.warns(UserWarning, match="adapt was left out: it takes 0.0 GB of memory"):
        small = sc.repair(sc.cut(model, plan), model, plan, data, progress=False)
    assert any(not torch.equal(a, b) for a, b in zip(small.parameters(), sc.cut(model, plan).parameters(), strict=True))


@pytest.mark.parametrize("shortage", ["", "adapt was left out: another process has no memory"])
def test_any_of_several_processes_decides_that_memory_is_short(shortage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers of all count, in the same order everywhere, so that all do the same."""
    model, plan, data = subject(32, 64)
    labels: list[str] = []

    def results_of_two(make: Callable[[], str], label: str) -> list[str]:
        labels.append(label)
        return [make(), shortage]

    monkeypatch.setattr(adapt_rows, "FEWEST_EQUATIONS", 0.0)
    monkeypatch.setattr(adapt_memory, "available_bytes", lambda _: None)
    monkeypatch.setattr(chain, "results_if_shared", results_of_two)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sc.repair(sc.cut(model, plan), model, plan, data, progress=False)
    texts = [str(warning.message) for warning in caught]
    assert labels == ["the memory for 'adapt'"]
    assert (shortage in texts) == bool(shortage)
    assert not any(text.startswith("adapt was left out: it takes") for text in texts)


def inverted_residuals() -> tuple[EmbeddedPrunedNetwork, list[Batch]]:
    """Return a cut network that widens and narrows again twice, by strides in the wide part, and examples."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 4, 3, padding=1)]
    for _ in range(2):
        wide = [nn.Conv2d(4, 24, 1), nn.ReLU(), nn.Conv2d(24, 24, 3, 2, 1, groups=24), nn.ReLU(), nn.Conv2d(24, 4, 1)]
        layers += wide
    model, data = nn.Sequential(*layers).eval(), torch.randn(32, 3, 16, 16)
    network = sc.trace(model, data[:2])
    plan = sc.plan(network, sc.score(network, by="l2"), {"units": 0.75}, allocation="uniform")
    cut_network = EmbeddedPrunedNetwork.of(sc.cut(model, plan), network, recipe_of(model, plan))
    return cut_network, split_microbatches(as_batches(list(data.split(8))), torch.device("cpu"))


def test_the_dense_network_waits_where_its_values_are_few() -> None:
    """Behind a wide layer that is compared, it goes on to the next narrow value."""
    cut_network, microbatches = inverted_residuals()
    network, examples = cut_network.network, sum(batch.size or 1 for batch in microbatches)
    block = next(block for block in reconstruction_blocks(network) if block.consumers[-1].name == "6")
    shared = SharedTargets(network, block.consumers, microbatches)
    stop = 1 + max(network.program.position[context.pre_activation] for context in shared.contexts.values())
    assert live_bytes_by_position(network.program)[stop] == 4 * 24 * 8 * 8  # float32 of the wide layer
    with torch.no_grad():
        shared.advance(cut_network, stop)
    held_tensors = [leaf for values in shared._values for leaf in values.values() if isinstance(leaf, torch.Tensor)]
    assert sum(tensor.nbytes for tensor in held_tensors) <= examples * 4 * 4 * 4 * 4


def test_where_the_dense_network_waits_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for waits_at_once in (False, True):
        if waits_at_once:
            monkeypatch.setattr(SharedTargets, "_lightest_stop", lambda self, cut_network, first_stop: first_stop)
        cut_network, microbatches = inverted_residuals()
        with torch.no_grad():
            reconstruct_blocks(PairedExecution(cut_network, microbatches))
        results.append([cut_network.state[name] for name in cut_network.state])
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))
