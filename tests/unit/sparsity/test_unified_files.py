"""Files of unified networks have the compressed size, and are read back bit for bit."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import secateur as sc
from secateur.sparsity import load_fast, unify
from secateur.sparsity.unification.blocks import (
    Blocks,
)
from secateur.sparsity.unification.codec import halved, load_compressed, save_compressed
from secateur.sparsity.unification.compressed_file import DIGEST
from secateur.sparsity.unification.unification import Unification
from unification_trainings import UnifiedNetwork, start_unification, train_steps

SHAPES = {"second.weight": (2, 4), "third.weight": (2, 4)}


def structured(**options: Any) -> UnifiedNetwork:
    model, optimizer, unification = start_unification(**options)
    train_steps(model, optimizer, 0, 3)
    unification.harden()
    unification.release()
    return model.eval()


@pytest.mark.parametrize("half", [False, True])
def test_a_file_is_read_back_bit_for_bit(tmp_path: Path, half: bool) -> None:
    model = halved(structured()) if half else structured()
    with torch.no_grad():
        model.second.weight[0, 0, 0, 0] = -0.0
    compressed = save_compressed(model, tmp_path / "model.blocks", SHAPES)
    loaded = load_compressed(UnifiedNetwork(5), tmp_path / "model.blocks")
    for name, tensor in model.state_dict().items():
        again = loaded.state_dict()[name]
        assert torch.equal(again, tensor) and torch.equal(again.signbit(), tensor.signbit())
    assert compressed.bytes == (tmp_path / "model.blocks").stat().st_size < compressed.dense_bytes
    assert compressed.pruned + compressed.unified + compressed.free == 6 * 7 * 9 + 7 * 8 * 9
    assert "x smaller" in str(compressed)


def test_more_structure_makes_a_smaller_file(tmp_path: Path) -> None:
    """More of it is a smaller file, and a dense network gains nothing but what its bytes repeat."""
    model = nn.Sequential(*(nn.Linear(128, 128, bias=False) for _ in range(3)))
    shapes = {f"{i}.weight": (1, 8) for i in range(3)}
    dense = save_compressed(model, tmp_path / "dense", shapes).bytes
    sizes = []
    for pruned, unified in ((0.5, 0.0), (0.5, 0.4), (0.7, 0.3)):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        Unification(model, optimizer, pruned, unified, only="*").harden()
        sizes.append(save_compressed(model, tmp_path / "small", shapes).bytes)
    assert dense > 0.8 * 3 * 128 * 128 * 4
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < dense / 12


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.7, 0.999])
def test_an_altered_or_cut_off_file_is_refused(tmp_path: Path, fraction: float) -> None:
    path = tmp_path / "model.blocks"
    save_compressed(structured(), path, SHAPES)
    raw = path.read_bytes()
    model = UnifiedNetwork(4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    at = int(fraction * len(raw))
    for broken in (raw[:at], raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]):
        path.write_bytes(broken)
        with pytest.raises(sc.SecateurError, match=r"not a file of blocks|checksum is wrong"):
            load_compressed(model, path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_unify_takes_a_model_and_data_and_the_report_counts_what_is_left(tmp_path: Path) -> None:
    x, model = torch.randn(32, 1, 10, 10), UnifiedNetwork().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    options: dict[str, Any] = {"shape": (2, 4, 1, 1), "soft_steps": 16, "tuning_steps": 4, "progress": False}
    result = unify(model, x, {"blocks": 0.5}, **options)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    result.save(tmp_path)
    assert torch.equal(sc.load(UnifiedNetwork(), tmp_path)(x), result.model.eval()(x))
    assert torch.allclose(load_fast(UnifiedNetwork(), tmp_path)(x), result.model(x), atol=1e-5)
    assert (tmp_path / "model.blocks").stat().st_size == result.report.pruned.cost.bytes == result.compressed.bytes
    stored = sum(value.numel() for value in model.parameters())
    for name in ("second.weight", "third.weight"):
        numbers = result.model.get_parameter(name).detach()
        blocks = Blocks(tuple(numbers.shape), (2, 4, 1, 1)).cut(numbers)
        stored -= numbers.numel() - sum(len(set(block[block != 0].abs().tolist())) for block in blocks)
    assert result.report.pruned.cost.params == stored
    assert result.report.sparsity.ratios["parameters"] == pytest.approx(
        sum(value.numel() for value in model.parameters()) / stored
    )


def test_files_of_another_network_and_none_at_all(tmp_path: Path) -> None:
    save_compressed(structured(), tmp_path / "model.blocks", SHAPES)
    with pytest.raises(sc.SecateurError, match="which is no weight of the model"):
        save_compressed(UnifiedNetwork(), tmp_path / "model.blocks", {"secund.weight": (1, 8)})
    with pytest.raises(sc.SecateurError, match="is of another network"):
        load_compressed(nn.Linear(2, 2), tmp_path / "model.blocks")
    with pytest.raises(sc.SecateurError, match="can't be read"):
        load_compressed(UnifiedNetwork(), tmp_path / "nowhere")
    assert len(hashlib.sha256().digest()) == DIGEST
