"""Names of sampling schemes: those in files of earlier versions stand for the same schemes."""

from pathlib import Path

import pytest
import torch

from secateur.importance.scheme_names import controlled_name, current_name
from secateur.importance.scores import GroupScores, Scores


@pytest.mark.parametrize(
    ("old", "name"),
    [
        ("gradients at 4 coalitions an example, corrected along orders", controlled_name(4, 1)),
        ("gradients at 2 coalitions an example and group, 7 groups, corrected along orders", controlled_name(2, 7)),
        ("antithetic, 32 examples a block", "antithetic, 32 examples a block"),
        (controlled_name(8, 3), controlled_name(8, 3)),
    ],
)
def test_names_of_earlier_versions_are_those_of_today(old: str, name: str) -> None:
    assert current_name(old) == name


def test_scores_of_an_earlier_version_have_the_name_of_today(tmp_path: Path) -> None:
    old = "gradients at 4 coalitions an example, corrected along orders"
    scores = GroupScores(torch.ones(3), torch.zeros(3), layout=old, stopped="12 coalitions")
    Scores({"fc": scores}, "shapley", 0, {}, "1 example").save(tmp_path / "scores.safetensors")
    loaded = Scores.load(tmp_path / "scores.safetensors")
    assert loaded["fc"].layout == controlled_name(4, 1)
    assert str(loaded).splitlines()[-2:] == [f"fc: {controlled_name(4, 1)}", "  sampled until 12 coalitions"]
