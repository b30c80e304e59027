"""Budgets of SPP in MACs, and the filters that nothing reads."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from secateur.sparsity.packed_layers.gathered_conv import GatheredConv2d, gathered
from secateur.sparsity.spp.spp import SPP
from spp_trainings import ColumnNetwork, StreamedBlock, macs_of, start_spp, train_in_portions, train_to_the_end
from zoo import grow


def test_a_budget_of_macs_is_met() -> None:
    x = torch.randn(1, 1, 9, 9)
    dense = macs_of(ColumnNetwork(), x)
    model, optimizer, spp = start_spp(keep={"macs": 0.6}, every=1)
    train_to_the_end(model, optimizer, spp)
    macs = macs_of(spp.finish().model, x)
    assert macs <= 0.6 * dense < macs + 2 * 12 * 81 + 2 * 6 * 16


def test_layers_that_have_their_own_ratio_leave_the_budget_to_the_others() -> None:
    """A third layer that loses less than the others makes them lose more."""
    x = torch.randn(1, 1, 9, 9)
    dense = macs_of(ColumnNetwork(), x)
    model, optimizer, spp = start_spp(keep={"macs": 0.6}, ratios={"third": 0.05}, every=1)
    train_to_the_end(model, optimizer, spp)
    result = spp.finish()
    assert result.columns["third"] == (108, 108 - math.ceil(0.05 * 108))
    assert macs_of(result.model, x) <= 0.6 * dense
    with pytest.raises(sc.SecateurError, match=r"can't be met.*left out: first \(it is the first"):
        start_spp(keep={"macs": 0.3}, ratios={"second": 0.05})


def test_filters_that_nobody_reads_count_towards_the_budget() -> None:
    """With whole channels as groups, each that goes takes a filter of the layer before with it: the run ends earlier
    than the ratio of columns asks for."""
    x = torch.randn(1, 1, 9, 9)
    dense = macs_of(ColumnNetwork(), x)
    model, optimizer, spp = start_spp(keep={"macs": 0.5}, groups="channels", every=1)
    train_to_the_end(model, optimizer, spp)
    assert any(columns.missing > 0 for columns in spp.columns)
    assert all(torch.equal(columns.chances, columns.pruned.double()) for columns in spp.columns)
    macs = macs_of(spp.finish().model, x)
    assert macs <= 0.5 * dense < macs + 0.25 * dense


class AlexLike(nn.Module):
    """Five convolutions, three of them in two groups, as in AlexNet."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.conv2 = nn.Conv2d(3, 8, 5, stride=2), nn.Conv2d(8, 16, 3, padding=1, groups=2)
        self.conv3, self.conv4 = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1, groups=2)
        self.conv5, self.fc = nn.Conv2d(16, 8, 3, padding=1, groups=2), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv2(F.max_pool2d(F.relu(self.conv1(x)), 2)))
        return self.fc(F.relu(self.conv5(F.relu(self.conv4(F.relu(self.conv3(x)))))).mean((2, 3)))


def test_grouped_convolutions_lose_the_same_columns_in_all_groups() -> None:
    """A network like AlexNet reaches 2x, computes what it did when it is cut, and what is gathered does, too."""
    model, x = AlexLike(), torch.randn(2, 3, 23, 23)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    spp = SPP(model, x, optimizer, {"macs": 0.5}, every=1)
    assert [columns.layer.name for columns in spp.columns] == ["conv2", "conv3", "conv4", "conv5"]
    second = spp.columns[0]
    by_hand = [
        sum(float(model.conv2.weight[filter_, channel, row, column].abs()) for filter_ in range(16))
        for channel, row, column in itertools.product(range(4), range(3), range(3))
    ]
    assert second.norms().tolist() == pytest.approx(by_hand)
    while not spp.is_finished and spp.steps < 1000:
        optimizer.zero_grad()
        model(torch.randn(4, 3, 23, 23)).square().mean().backward()
        optimizer.step()
    for name in ("conv2", "conv4", "conv5"):
        weight = model.get_submodule(name).weight.detach()
        halves = [half.abs().sum(0) == 0 for half in weight.chunk(2)]  # (channels, 3, 3): a column of one group
        assert torch.equal(halves[0], halves[1]) and bool(halves[0].any())
    model.eval()
    dense, before = macs_of(AlexLike(), x[:1]), model(x)
    result = spp.finish()
    assert macs_of(result.model, x[:1]) <= 0.5 * dense
    assert torch.allclose(result.model(x), before, atol=1e-5)
    fast = gathered(result.model, below=0.9)
    assert isinstance(fast.conv2, GatheredConv2d) and torch.allclose(fast(x), before, atol=1e-5)


def test_channels_that_nobody_reads_are_cut_and_the_network_stays_the_same(tmp_path: Path) -> None:
    model, optimizer, spp = start_spp(groups="channels", keep={"columns": 0.5}, every=1)
    train_to_the_end(model, optimizer, spp)
    train_in_portions(model, optimizer, 200, 203)
    model.eval()
    x = torch.randn(3, 1, 9, 9)
    before = model(x)
    result = spp.finish()
    assert result.model.first.weight.shape[0] == 4 and result.model.second.weight.shape[0] == 6
    assert torch.allclose(result.model(x), before, atol=1e-5)
    assert result.columns["second"] == (72, 36) and "units" in str(result)
    result.save(tmp_path)
    assert torch.equal(sc.load(ColumnNetwork().eval(), tmp_path)(x), result.model(x))


def test_filters_that_nobody_reads_are_zero_where_others_write_into_their_channel() -> None:
    """The block reads the channel, the head does not: what the block adds to it is needless, and counts as gone."""
    model, x = StreamedBlock(), torch.randn(2, 1, 6, 6)
    spp = SPP(model, x, torch.optim.SGD(model.parameters(), 0.1), {"columns": 0.75}, every=1)
    with torch.no_grad():
        spp.columns[-1].chances[1] = 1.0
        for columns in spp.columns:
            columns.finish()
    spp.is_finished = True
    before = model(x)
    result = spp.finish()
    assert float(result.model.second.weight[1].abs().sum()) == 0 and result.model.stem.weight.shape[0] == 4
    assert torch.allclose(result.model(x), before, atol=1e-6)


@pytest.mark.parametrize("keep", [{"columns": 0.5}, {"macs": 0.5}])
def test_residual_networks_need_no_coupling(keep: dict[str, float]) -> None:
    model, example = grow("residual")
    dense = macs_of(model, example[:1])
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    spp = SPP(model, example, optimizer, keep, groups="columns" if "columns" in keep else "channels", every=1)
    for _ in range(1000):
        if spp.is_finished:
            break
        optimizer.zero_grad()
        model(example).square().mean().backward()
        optimizer.step()
    model.eval()
    before = model(example)
    result = spp.finish()
    assert torch.allclose(result.model(example), before, atol=1e-5)
    assert "macs" not in keep or macs_of(result.model, example[:1]) <= 0.5 * dense
    assert torch.allclose(gathered(result.model, below=0.9)(example), before, atol=1e-5)
