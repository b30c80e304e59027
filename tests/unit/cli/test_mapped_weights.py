"""Models of a folder: their weights are pages of its files, in their own type, and pruning leaves these as they are."""

import hashlib
import sys
from pathlib import Path

import pytest
import torch
from support.transformers_models import tiny_transformer

import secateur as sc
from secateur.cli.named_models import model_from


def mapped_file(address: int) -> str:
    """Return the file that a page of this process's memory belongs to, "" where it is none of a file."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        fields = line.split(maxsplit=5)
        start, stop = (int(number, 16) for number in fields[0].split("-"))
        if start <= address < stop:
            return Path(fields[5]).name if len(fields) == 6 else ""
    return ""


@pytest.mark.skipif(sys.platform != "linux", reason="mapped pages are read from /proc")
def test_weights_of_a_folder_are_pages_of_its_files(tmp_path: Path) -> None:
    model, batch = tiny_transformer("llama", 4)
    model.to(torch.bfloat16).save_pretrained(tmp_path, max_shard_size="10KB")
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in tmp_path.iterdir()}
    mapped = model_from(f"hf:{tmp_path}", None, None)
    result = sc.prune(mapped, batch, keep={"params": 0.8}, by="l2", repair=None, progress=False)
    files = {mapped_file(weight.data_ptr()) for weight in mapped.parameters()}
    assert len(files) > 1 and files <= digests.keys()
    assert {weight.dtype for weight in (*mapped.parameters(), *result.model.parameters())} == {torch.bfloat16}
    assert not {mapped_file(weight.data_ptr()) for weight in result.model.parameters()} & digests.keys()
    assert {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in tmp_path.iterdir()} == digests
