"""The memory of block reconstruction: what is told before it starts is what it takes."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

import secateur as sc
from expected_warnings import untrained_networks
from live_bytes import LiveBytes
from secateur.data.conversion import as_batches
from secateur.importance.context import split_microbatches
from secateur.recovery import adapt_memory, adapt_rows, chain
from secateur.recovery.adapt_memory import adapt_bytes, adapt_shortage
from secateur.recovery.block_reconstruction import reconstruct_blocks
from secateur.recovery.embedded import EmbeddedPrunedNetwork
from secateur.recovery.paired_run import PairedExecution
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
