"""The benchmark of costs: stages and kinds of work are named by functions and files of the source."""

import re
import time
from pathlib import Path

import pytest
from cost.stages import ENTRIES, STAGES, TimeSampler
from cost.work import KINDS, kind_of, kind_shares, print_profile

import secateur

SOURCE = Path(secateur.__file__).parent


def _defines(path: Path, function: str) -> bool:
    return re.search(rf"^ *def {function}\(", path.read_text(encoding="utf-8"), re.MULTILINE) is not None


def test_stages_are_entered_by_functions_of_the_source() -> None:
    files = {function: SOURCE / file.removeprefix("secateur/") for function, file in ENTRIES}
    assert [name for name, path in files.items() if not _defines(path, name)] == []


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_name_files_and_functions_of_the_source(kind: str) -> None:
    for location in KINDS[kind]:
        file, _, function = location.partition(":")
        assert (SOURCE / file).exists()
        assert not function or _defines(SOURCE / file, function)


def test_a_function_has_the_kind_of_its_longest_entry() -> None:
    assert kind_of("utils/symmetric_matrices.py:factor_in_place") == "solves"
    assert kind_of("graph/program.py:run") == "passes"
    assert kind_of("graph/export.py:export_program") == "trace"
    assert kind_of("") == "other"


def test_the_shares_of_kinds_are_of_all_time(capsys: pytest.CaptureFixture[str]) -> None:
    seconds = {("refit", "recovery/ridge.py:solve"): 3.0, ("score", "graph/program.py:run"): 1.0, ("plan", ""): 4.0}
    assert kind_shares(seconds) == {"passes": 0.125, "solves": 0.375, "other": 0.5}
    print_profile(seconds, STAGES)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines if line.startswith(("passes", "solves"))] == [
        ["passes", "12.5"], ["solves", "37.5"],
    ]  # fmt: skip
    assert lines[-1] == " 50.0 other: outside of secateur"


def test_processor_time_is_sampled_outside_of_all_stages() -> None:
    with TimeSampler() as sampler:
        end = time.process_time() + 0.1
        while time.process_time() < end:
            pass
    assert set(sampler.seconds) == {("other", "")}
    assert sampler.by_stage()["other"] > 0
