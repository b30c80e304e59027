"""Outputs of the dense network that are kept: what is counted is what they hold."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import secateur as sc
from secateur.data.batch import Batch
from secateur.evaluation.dense_outputs import DenseOutputs, entry_count
from secateur.recovery.paired_run import dense_outputs


class LastToken(nn.Module):
    """Class scores of the last token, a view of those of all tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        scores = self.down(torch.relu(self.up(x)))
        return {"last": scores[:, -1], "mean": scores.mean(1)}


def held_entries(outputs: object) -> int:
    """Return the number of entries in all storages of outputs."""
    storages = [leaf.untyped_storage() for leaf in pytree.tree_leaves(outputs)]
    return sum({storage.data_ptr(): storage.nbytes() // 4 for storage in storages}.values())


def test_kept_outputs_hold_no_more_than_is_counted() -> None:
    model, batch = LastToken().eval(), Batch((torch.randn(5, 7, 4),), {})
    outputs = DenseOutputs(model)
    with outputs.ready_for([batch]):
        first = outputs.of(batch)
    assert outputs.of(batch) is first
    assert held_entries(first) == entry_count(first) == 2 * 5 * 3
    with torch.no_grad():
        assert all(torch.equal(first[name], value) for name, value in model(*batch.args).items())


def test_kept_outputs_of_a_program_hold_no_more_than_is_counted() -> None:
    model, batch = LastToken().eval(), Batch((torch.randn(5, 7, 4),), {})
    with torch.no_grad():
        outputs = dense_outputs(sc.trace(model, batch.args[0]), [batch], most_entries=2 * 5 * 3)
    assert held_entries(outputs) == entry_count(outputs) == 2 * 5 * 3


def test_scales_of_the_same_batches_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secateur.evaluation.dense_outputs.MOST_ENTRIES", 0)  # no output is kept
    model, runs = nn.Linear(4, 1), list[int]()
    model.register_forward_hook(lambda *_: runs.append(1))
    batches = [Batch((x,), {}) for x in torch.randn(9, 4).split(3)]
    dense = DenseOutputs(model)
    first, again = dense.scales_of(batches), dense.scales_of(batches)
    assert first == again
    assert len(runs) == 4  # each batch, and the first one for the form of its outputs
