"""Damaged and crafted files: each gives the very same result, or an error that leaves everything as it was."""

import collections
import warnings
from pathlib import Path

from damaged import outcome, subjects

CHANCE = 100
CRAFTED = {"recipe": 500, "program": 120}
OTHERS = 200
LEAST = 2000


def test_every_variant_is_the_same_or_refused(tmp_path: Path) -> None:
    counts: collections.Counter[str] = collections.Counter()
    wrong = []
    for subject in subjects(tmp_path):
        whole = subject.path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = subject.use()[0]()
            for name, content in subject.variants(CHANCE, CRAFTED.get(subject.kind, OTHERS)):
                result = outcome(subject, content, expected)
                counts[f"{subject.kind}: {result}"] += 1
                if result not in ("same", "refused"):
                    wrong.append(f"{subject.kind}, {name}: {result}")
        subject.path.write_bytes(whole)
    assert not wrong, "\n".join(wrong[:20])
    assert sum(counts.values()) >= LEAST
    assert {name.split(":")[0] for name in counts if name.endswith("refused")} == {
        name.split(":")[0] for name in counts
    }
