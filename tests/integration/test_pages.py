"""The code of README and of the documentation pages runs as it stands, on small networks."""

import re
from pathlib import Path

import pytest
import torch

from expected_warnings import untrained_networks
from page_settings import BLOCKS_NOT_RUN, CHECKS, NOT_RUN, SETTINGS
from repository import ROOT

BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@untrained_networks
@pytest.mark.parametrize("page", SETTINGS)
def test_the_code_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    namespace = {"__name__": "page", **SETTINGS[page]()}
    blocks = BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
    excluded = {line for name, line in BLOCKS_NOT_RUN if name == page}
    remaining = [block for block in blocks if block.splitlines()[0] not in excluded]
    assert remaining and len(remaining) == len(blocks) - len(excluded)
    for block in remaining:
        exec(compile(block, page, "exec"), namespace)
    CHECKS.get(page, lambda names: None)(namespace)


def test_every_page_with_code_is_run_or_named_with_a_reason() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    names = {str(page.relative_to(ROOT)) for page in pages if BLOCK.search(page.read_text(encoding="utf-8"))}
    assert names == {*SETTINGS, *NOT_RUN}
