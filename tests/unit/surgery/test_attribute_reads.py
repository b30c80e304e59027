"""Attributes that a failing trial did not read are not tried, and the others are tried in few trials."""

from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur.coupling import module_slices
from secateur.surgery.attribute_reads import attribute_reads
from secateur.surgery.diagnose import proposed_updates
from secateur.surgery.trial_cut import TrialCutter


class Counted(nn.Module):
    """A block with numbers that equal its width, of which its code reads one."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(4, 6), nn.Linear(6, 2)
        self.read = self.unread = self.also_unread = 6
        self.listed = [6, 1]

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(x).reshape(-1, self.read))


class Looking(Counted):
    """The same, which looks at all of its attributes."""

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(x).reshape(-1, vars(self)["read"]))


def test_reads_are_noted_and_modules_are_as_they_were() -> None:
    model = Counted()
    with attribute_reads(model) as reads:
        model(torch.randn(3, 4))
    assert reads.includes("", "read") and reads.includes("layer", "weight")
    assert not any(reads.includes("", name) for name in ("unread", "also_unread", "listed"))
    assert "__getattribute__" not in vars(nn.Module)
    with attribute_reads(looking := Looking()) as all_reads:
        looking(torch.randn(3, 4))
    assert all_reads.includes("", "unread") and not all_reads.includes("last", "in_features")


def test_reads_end_where_code_fails() -> None:
    with pytest.raises(RuntimeError), attribute_reads(model := Counted()):
        model(torch.randn(3, 5))
    assert "__getattribute__" not in vars(nn.Module)


@pytest.mark.parametrize("make", [Counted, Looking])
def test_only_numbers_that_were_read_are_proposed(make: type[Counted]) -> None:
    model = make().eval()
    with patch.object(TrialCutter, "_run", return_value=None):  # a network before any trial
        network = sc.trace(model, torch.randn(3, 4))
    trials = TrialCutter(model)
    reads = trials.reads(network, {"layer": torch.tensor([0, 2])})
    assert reads is not None
    attributes = {mend.attribute for mends in proposed_updates(model, network, "", reads) for mend in mends}
    assert attributes == ({"read"} if make is Counted else {"read", "unread", "also_unread", "listed"})
    assert [(mend.attribute, mend.path) for mend in sc.trace(model, torch.randn(3, 4)).attribute_updates] == [
        ("read", "")
    ]


def test_a_further_export_that_fails_is_made_once() -> None:
    """Every module asks for it, and each attempt takes as long as the export of the model."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.last = nn.Linear(4, 6), nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.layer(x).reshape(-1, 6))

    refused = patch.object(module_slices, "export_fresh", side_effect=sc.SecateurError("refused"))
    model = nn.Sequential(Block(), Block(), Block()).eval()
    with refused as export:
        network = sc.trace(model, torch.randn(3, 4))
    assert export.call_count == 2 and not network.module_programs
