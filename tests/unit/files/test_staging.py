"""Folders that are made for a save go with it where it fails."""

from pathlib import Path

import pytest

from secateur.errors import StorageError
from secateur.files.staging import text_writer, write_files


def full_disk(path: Path) -> str:
    raise OSError(28, "No space left on device")


def interrupted(path: Path) -> str:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("writer", "error"), [(full_disk, StorageError), (interrupted, KeyboardInterrupt)])
def test_a_save_that_fails_leaves_no_folder_behind(tmp_path: Path, writer: object, error: type[BaseException]) -> None:
    writers = {"first": text_writer("1"), "second": writer}
    with pytest.raises(error):
        write_files(tmp_path / "a" / "b", writers)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a").mkdir()
    with pytest.raises(error):
        write_files(tmp_path / "a" / "b", writers)  # type: ignore[arg-type]
    assert list(tmp_path.rglob("*")) == [tmp_path / "a"]  # it was there before
    write_files(tmp_path / "a" / "b", {"first": text_writer("1")})
    with pytest.raises(error):
        write_files(tmp_path / "a" / "b", writers)  # type: ignore[arg-type]
    assert (tmp_path / "a" / "b" / "first").read_text() == "1"
