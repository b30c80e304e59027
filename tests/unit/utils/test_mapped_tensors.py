"""Tensors in temporary files: the same values, no memory of the process's own, and no file that stays."""

import os
import tempfile
from pathlib import Path

import pytest
import torch

from secateur.utils import mapped_tensors
from secateur.utils.mapped_tensors import SpillingTensors, TensorRoom, mapped_copy

pytestmark = pytest.mark.skipif(os.name != "posix", reason="files in use can't be removed")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def is_mapped(tensor: torch.Tensor) -> bool:
    return tensor.untyped_storage().is_shared()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.bool])
def test_a_mapped_copy_has_the_values_type_and_layout_of_the_tensor(folder: Path, dtype: torch.dtype) -> None:
    for tensor in (torch.randn(3, 4, 5, 6), torch.randn(3, 4, 5, 6).to(memory_format=torch.channels_last),
                   torch.randn(4, 7).t(), torch.randn(4, 7)[:, ::2], torch.tensor(2.5)):  # fmt: skip
        tensor = tensor.to(dtype)
        copy = mapped_copy(tensor)
        assert is_mapped(copy) and torch.equal(copy, tensor) and copy.dtype == dtype
        assert copy.stride() == torch.empty_like(tensor).stride()
        copy.fill_(1)
        assert bool((copy == 1).all())
    assert not list(folder.iterdir())  # no file has a name


def test_a_folder_that_has_no_room_leaves_the_tensor_in_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.randn(5)

    def refuse(*_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    assert mapped_copy(tensor) is tensor
    assert not list(folder.iterdir())
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "missing"))
    assert mapped_copy(tensor) is tensor


def test_tensors_of_other_kinds_stay_as_they_are(folder: Path) -> None:
    class Marked(torch.Tensor):
        pass

    for tensor in (
        torch.empty(3, device="meta"),
        torch.eye(3).to_sparse(),
        torch.empty(0),
        torch.eye(3).as_subclass(Marked),
    ):
        assert mapped_copy(tensor) is tensor
    assert is_mapped(mapped_copy(torch.nn.Parameter(torch.eye(3), requires_grad=False)))


def test_without_a_way_to_reserve_room_the_disk_is_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    assert is_mapped(mapped_copy(torch.randn(5)))
    full = type("Usage", (), {"free": 0})
    monkeypatch.setattr(mapped_tensors.shutil, "disk_usage", lambda _: full)
    assert not is_mapped(mapped_copy(torch.randn(5)))


def test_new_tensors_are_held_in_memory_up_to_the_room(folder: Path) -> None:
    first = torch.randn(100)
    table = SpillingTensors({"a": first}, room=800)
    assert table["a"] is first
    for name in ("a", "b", "c", "b"):  # 400 bytes each; what is replaced counts no more
        table[name] = torch.randn(100)
    assert [is_mapped(table[name]) for name in "abc"] == [False, False, True]
    table["a"] = torch.randn(200)
    assert is_mapped(table["a"])


def test_a_room_copies_in_memory_as_long_as_there_is_room_or_no_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, tensors = TensorRoom(800), [torch.randn(100) for _ in range(3)]
    copies = [room.copy(tensor) for tensor in tensors]
    assert [is_mapped(copy) for copy in copies] == [False, False, True]
    room.release(400)
    assert room.fit(tensors[0]) is tensors[0]
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "missing"))
    copies.append(room.copy(tensors[2]))
    assert not is_mapped(copies[-1]) and room.fit(tensors[2]) is tensors[2]
    for copy, tensor in zip(copies, [*tensors, tensors[2]], strict=True):
        assert torch.equal(copy, tensor) and copy.data_ptr() != tensor.data_ptr()
