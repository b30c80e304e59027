"""Damaged and crafted files: each gives the very same result, or an error that leaves everything as it was."""

import collections
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from damaged import Subject, alike, subjects
from secateur.errors import DataError, StorageError

CHANCE = 100
CRAFTED = {"recipe": 500, "program": 120}
OTHERS = 200
LEAST = 2000


def snapshot(model: nn.Module) -> Any:
    flags = [(module.training, sorted(vars(module)), type(module)) for module in model.modules()]
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}, repr(model), flags


def outcome(subject: Subject, content: bytes, expected: Any) -> str:
    """same, refused, or what is wrong."""
    subject.path.write_bytes(content)
    use, model = subject.use()
    before, random_state = None if model is None else snapshot(model), torch.random.get_rng_state()
    try:
        said = "same" if alike(use(), expected) else "silently another"
    except (StorageError, DataError):  # of data, where a checkpoint is one of other scores
        said = "refused" if model is None or alike(before, snapshot(model)) else "refused, and the model is changed"
    except Exception as failure:  # noqa: BLE001 (it is what is asked about)
        said = f"raw {type(failure).__name__}: {failure}"
    return said if torch.equal(random_state, torch.random.get_rng_state()) else f"{said}, random state changed"


def test_every_variant_is_the_same_or_refused(tmp_path: Path) -> None:
    counts: collections.Counter[str] = collections.Counter()
    wrong = []
    for subject in subjects(tmp_path):
        whole = subject.path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = subject.use()[0]()
            for name, content in subject.variants(CHANCE, CRAFTED.get(subject.kind, OTHERS)):
                said = outcome(subject, content, expected)
                counts[f"{subject.kind}: {said}"] += 1
                if said not in ("same", "refused"):
                    wrong.append(f"{subject.kind}, {name}: {said}")
        subject.path.write_bytes(whole)
    assert not wrong, "\n".join(wrong[:20])
    assert sum(counts.values()) >= LEAST
    assert {name.split(":")[0] for name in counts if name.endswith("refused")} == {
        name.split(":")[0] for name in counts
    }
