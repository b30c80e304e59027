"""The page of the experiments, docs/papers.md."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from rows import read_rows

from papers.experiments import EXPERIMENTS, PaperExperiment
from papers.page_texts import HEAD, OPTIONS, REMARKS, VERSIONS

Row = dict[str, Any]


def write_papers_page(results: Path, folder: Path) -> None:
    """Write the page, each experiment's tables below its text, and the plots.

    Args:
        results: the folder of the rows.
        folder: the folder of the page.
    """
    lines = [HEAD]
    for name, experiment in EXPERIMENTS.items():
        rows = _recorded_rows(results, name)
        if rows:
            title, _, rest = (experiment.text or "").partition("\n\n")
            lines += [f"## {title.rstrip('.')}", "", f"    {_command(name)}", "", _version_sentence(name, rows), ""]
            lines += [rest.strip(), ""] if rest.strip() else []
            lines += [*experiment.tables(rows), "", *REMARKS.get(name, ())]
            if experiment.figure is not None:
                with matplotlib.rc_context({"svg.hashsalt": name}):  # the same figures make the same file
                    experiment.figure(rows).savefig(folder / f"papers-{name}.svg", metadata={"Date": None})
                lines += [f"![{title.rstrip('.')}](papers-{name}.svg)", ""]
            lines += _cifar_section(results, name, experiment)
    (folder / "papers.md").write_text("\n".join(lines).rstrip() + "\n")


def _recorded_rows(results: Path, name: str) -> list[Row]:
    """Return the rows of all files of an experiment."""
    return read_rows(*sorted(results.glob(f"{name}.*.jsonl")))


def _cifar_section(results: Path, name: str, experiment: PaperExperiment) -> list[str]:
    """Return the section of an experiment on CIFAR-10, if there are rows."""
    key = f"{name}-cifar10"
    rows = _recorded_rows(results, key)
    if not rows:
        return []
    heading = "### On CIFAR-10, with a VGG-16 of half the published width"
    tables = experiment.tables(rows)
    return [heading, "", f"    {_command(key)}", "", _version_sentence(key, rows), "", *tables, "", *REMARKS[key]]


def _command(name: str) -> str:
    return f"python -m benchmarks reproductions {name.removesuffix('-cifar10')} {OPTIONS.get(name, '')}".rstrip()


def _version_sentence(name: str, rows: Sequence[Row]) -> str:
    """Return a sentence on the versions that measured the rows."""
    recorded_versions = sorted({row["run"]["version"] for row in rows if "run" in row})
    unrecorded = [VERSIONS[name]] if any("run" not in row for row in rows) and name in VERSIONS else []
    return f"Measured with the source of Secateur {' and '.join([*unrecorded, *recorded_versions])}."
