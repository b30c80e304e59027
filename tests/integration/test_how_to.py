"""The code of the how-to pages runs as it stands."""

import importlib.util
import re
from pathlib import Path

import pytest

from expected_warnings import untrained_networks

PAGES = Path(__file__).parents[2] / "docs" / "how-to"
LIBRARY_BLOCK = re.compile(r"^```py\n((?:import|from) (\w+).*?)^```", re.MULTILINE | re.DOTALL)
"""A block that is run where the library that it imports first is installed."""
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


WITH_CODE = [
    "long-runs.md",
    "criterion.md",
    "detectors.md",
    "estimator.md",
    "gpu.md",
    "language-model.md",
    "onnx.md",
    "repair.md",
    "sentence-embeddings.md",
    "shapley-values.md",
    "sizes.md",
    "trainers.md",
    "training-method.md",
]


@untrained_networks
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")  # peft with recent transformers
@pytest.mark.parametrize("page", WITH_CODE)
def test_the_code_of_a_how_to_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page == "onnx.md":
        pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    text = (PAGES / page).read_text(encoding="utf-8")
    blocks = BLOCK.findall(text)
    assert len(blocks) >= 3
    blocks += [block for block, library in LIBRARY_BLOCK.findall(text) if importlib.util.find_spec(library)]
    namespace: dict[str, object] = {"__name__": "how_to"}
    for block in blocks:
        exec(compile(block, page, "exec"), namespace)
