"""Files for other runtimes: the same outputs for every batch size, nothing written that was not checked."""

import sys
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur.deployment import onnx_conversion


class Two(nn.Module):
    """Two inputs, one of them by keyword, and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.label = nn.Conv2d(3, 8, 3), nn.Embedding(5, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor, *, label: Tensor) -> dict[str, Tensor]:
        features = self.image(x).mean((2, 3)) * self.label(label)
        return {"logits": self.head(features), "features": features}


def _two_inputs(examples: int) -> dict[str, Tensor]:
    return {"x": torch.randn(examples, 3, 6, 6), "label": torch.arange(examples) % 5}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return Two().train()


def test_an_onnx_file_gives_the_outputs_for_any_batch_size(model: nn.Module, tmp_path: Path) -> None:
    file = sc.export(model, tmp_path / "new" / "two.onnx", _two_inputs(4))
    assert file.inputs == {"x": "(batch, 3, 6, 6)", "label": "(batch)"} and file.batch_sizes == (4, 5)
    assert list(file.outputs.values()) == ["(batch, 2)", "(batch, 8)"]
    session = onnxruntime.InferenceSession(str(file.path))
    for examples in (1, 7):
        feed = _two_inputs(examples)
        outputs = session.run(None, {name: tensor.numpy() for name, tensor in feed.items()})
        for output, expected in zip(outputs, model.eval()(**feed).values(), strict=True):
            assert torch.allclose(torch.from_numpy(output), expected, atol=1e-5)
    model.train()
    assert file.bytes == file.path.stat().st_size and set(file.milliseconds) == {"torch", "onnxruntime"}
    assert f"ONNX, opset {onnx.load(file.path).opset_import[0].version}" in str(file)
    assert file.to_dict()["path"].endswith("two.onnx") and "<table>" in file._repr_html_()


def test_the_opset_is_the_one_that_was_asked_for(model: nn.Module, tmp_path: Path) -> None:
    file = sc.export(model, tmp_path / "two.onnx", _two_inputs(2), opset=18)
    assert onnx.load(file.path).opset_import[0].version == 18 and file.format == "ONNX, opset 18"


def test_a_program_of_torch_export_gives_the_same_outputs(model: nn.Module, tmp_path: Path) -> None:
    file = sc.export(model, tmp_path / "two.pt2", _two_inputs(2))
    assert file.difference == 0 and model.training
    feed = _two_inputs(5)
    loaded = torch.export.load(file.path).module()
    assert torch.equal(loaded(**feed)["logits"], model.eval()(**feed)["logits"])
    model.train()


def test_a_result_exports_its_small_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    result = sc.prune(dense, torch.randn(32, 6), {"macs": 0.5}, by="l1", repair=None, progress=False)
    file = result.export(tmp_path / "small.onnx")
    assert file.bytes < sc.export(dense, tmp_path / "dense.onnx", torch.randn(2, 6)).bytes


class Fixed(nn.Module):
    """A batch size that the code fixes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).view(3, 4)


def test_a_fixed_batch_size_stays_fixed(tmp_path: Path) -> None:
    file = sc.export(Fixed(), tmp_path / "fixed.onnx", torch.randn(3, 4))
    assert file.inputs == {"x": "(3, 4)"} and file.batch_sizes == (3,)


def test_what_can_not_be_exported_is_refused_and_nothing_is_written(
    model: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, inputs = tmp_path / "two.onnx", _two_inputs(2)
    with pytest.raises(sc.SecateurError, match=r"two.engine ends in no format; .* ends in .onnx or .pt2"):
        sc.export(model, tmp_path / "two.engine", inputs)
    with pytest.raises(sc.SecateurError, match=r"opset=7 is too old"):
        sc.export(model, path, inputs, opset=7)
    with pytest.raises(sc.SecateurError, match=r"opset=18 is for .onnx files"):
        sc.export(model, tmp_path / "two.pt2", inputs, opset=18)
    with pytest.raises(sc.SecateurError, match="model is a str"):
        sc.export("two.onnx", model, inputs)  # type: ignore[arg-type]

    def wrong(self: Any, feed: Any) -> list[Tensor]:
        return [torch.from_numpy(array) + 1 for array in self._session.run(None, dict(feed))]

    monkeypatch.setattr(onnx_conversion.OnnxSession, "run", wrong)
    with pytest.raises(sc.SecateurError, match=r"onnxruntime computes another output than Two: .* nothing is written"):
        sc.export(model, path, inputs)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(sc.SecateurError, match=r"needs the package onnxscript.*pip install 'secateur\[onnx\]'"):
        sc.export(model, path, inputs)
    assert not list(tmp_path.iterdir())
