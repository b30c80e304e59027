"""`spp`: a model and data are enough; its report, its files and bad input."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from secateur.sparsity import load_fast
from secateur.sparsity import spp as pruned_by_spp
from secateur.sparsity.packed_layers.gathered_conv import GatheredConv2d
from secateur.sparsity.spp.spp import SPP
from spp_trainings import ColumnNetwork, macs_of, start_spp


def test_spp_takes_a_model_and_data_and_the_report_counts_what_is_left(tmp_path: Path) -> None:
    x, model = torch.randn(32, 1, 9, 9), ColumnNetwork().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = pruned_by_spp(model, (x, torch.arange(32) % 4), {"macs": 0.6}, every=1, tuning_steps=5, progress=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    report = result.report
    assert report.dense.cost.macs == macs_of(ColumnNetwork(), x[:1]) and report.pruned.cost.macs == macs_of(
        result.model, x[:1]
    )
    assert report.pruned.cost.macs <= 0.6 * report.dense.cost.macs
    assert report.dense.accuracy is not None and report.sparsity.layers["third.weight"].structure.endswith("columns")
    result.save(tmp_path)
    assert torch.equal(sc.load(ColumnNetwork(), tmp_path)(x), result.model.eval()(x))
    (tmp_path / "kernels.json").write_text((tmp_path / "kernels.json").read_text().replace("dense", "tiles"))
    fresh = ColumnNetwork()
    with pytest.raises(sc.SecateurError, match=r"checksum|altered"):
        load_fast(fresh, tmp_path)
    assert fresh.second.weight.shape == before["second.weight"].shape


def test_kernels_are_read_back_without_timing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was fastest when it was saved."""
    monkeypatch.setattr("secateur.evaluation.kernel_selection.select_kernel", lambda makers, x: _last(makers))
    x, model = torch.randn(8, 1, 9, 9), ColumnNetwork().eval()
    result = pruned_by_spp(model, x, {"columns": 0.5}, every=1, tuning_steps=2, progress=False)
    result.save(tmp_path)
    assert set(result.fast.kernels.values()) == {"gathered"}
    fast = load_fast(ColumnNetwork(), tmp_path)
    assert isinstance(fast.second, GatheredConv2d) and isinstance(fast.third, GatheredConv2d)
    assert torch.allclose(fast(x), result.model(x), atol=1e-5)


def _last(makers: Any) -> Any:
    *_, name = makers
    return name, makers[name](), dict.fromkeys(makers, 1.0)


def test_options_are_checked_before_anything_is_done() -> None:
    with pytest.raises(sc.SecateurError, match="`SPP` has no option 'evry'; did you mean 'every'"):
        start_spp(evry=3)
    with pytest.raises(sc.SecateurError, match=r"model is an OrderedDict, not a torch\.nn\.Module"):
        SPP(
            ColumnNetwork().state_dict(),
            torch.randn(2, 1, 9, 9),
            torch.optim.SGD(ColumnNetwork().parameters(), 0.1),
            {"columns": 0.5},
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": {"macs": 0.001}}, "can't be met"),
        ({"keep": {"params": 0.5}}, "give {'macs': 0.5}"),
        ({"keep": None}, "neither keep= nor ratios= is given"),
        ({"groups": "rows"}, "groups are columns or channels"),
        ({"skip": "nowhere"}, "matches no convolution"),
        ({"skip": "*"}, "no convolution whose columns can be pruned"),
        ({"ratios": {"fourth": 0.5}}, "matches no convolution to prune; the nearest are third"),
        ({"ratios": {"third": 1.0}}, "columns to prune, below 1"),
    ],
)
def test_bad_input_of_spp(options: dict[str, Any], message: str) -> None:
    with pytest.raises(sc.SecateurError, match=message):
        start_spp(**options)


class Bare(nn.Module):
    """Two weights of one module that are no layers of torch's."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(1, 4, 3)
        self.one, self.two = nn.Parameter(torch.randn(4, 4, 3, 3)), nn.Parameter(torch.randn(2, 4, 3, 3))
        self.b1, self.b2 = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(self.stem(x).relu(), self.one, self.b1).relu(), self.two, self.b2)


def test_layers_are_named_by_their_weights_where_a_module_has_several() -> None:
    model = nn.Sequential(Bare())
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    spp = SPP(model, torch.randn(2, 1, 9, 9), optimizer, ratios={"0.one": 0.5, "0.two": 0.25}, every=1)
    while not spp.is_finished:
        optimizer.zero_grad()
        model(torch.randn(2, 1, 9, 9)).square().mean().backward()
        optimizer.step()
    assert spp.finish().columns == {"0.one": (36, 18), "0.two": (36, 27)}


class Mixed(nn.Module):
    """Convolutions of every kind, one by a parameter of the model's own, without a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.kernel = nn.Parameter(torch.randn(8, 8, 3, 3))
        self.plain = nn.Conv2d(8, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.twice = nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depthwise(self.first(x).relu()).relu()
        x = nn.functional.conv2d(x, self.kernel, padding=1).relu()
        x = self.up(self.plain(x).relu()).relu()
        return self.twice(self.twice(x).relu()).mean((2, 3))


def test_what_is_not_pruned_is_named_with_its_reason() -> None:
    torch.manual_seed(0)
    model = Mixed()
    spp = SPP(model, torch.randn(2, 1, 8, 8), torch.optim.SGD(model.parameters(), 0.01), {"columns": 0.5}, every=1)
    pruned = {columns.layer.name for columns in spp.columns}
    assert "plain" in pruned
    assert pruned | set(spp.left_out) >= {"first", "depthwise", "plain", "up", "twice"}
    assert not pruned & set(spp.left_out)
    assert spp.left_out["first"] == "it is the first, or among those to skip"
    assert spp.left_out["depthwise"] == "it is depthwise: it has no input channels to sum"
    assert spp.left_out["up"] == "it is transposed"
    assert "no parameter of its own" in spp.left_out["twice"]
    print(pruned, spp.left_out)
