"""The example that the site's start page times: a model of one's own, from its definition to a saved small one."""

from pathlib import Path

from first_model import main

from expected_warnings import untrained_networks


@untrained_networks
def test_the_first_model_is_pruned_and_saved(tmp_path: Path) -> None:
    result = main(str(tmp_path / "small"))
    assert result.plan.cost.macs <= 0.5 * result.plan.dense.macs
    assert {"recipe.json", "weights.safetensors", "report.html"} <= {
        path.name for path in (tmp_path / "small").iterdir()
    }
