"""Run a benchmark by its name.

    python -m benchmarks NAME [options of the benchmark]
    python -m benchmarks NAME --help

Rows of results are written to `benchmarks/results/NAME/`, each with the version and commit of Secateur, the version of
torch, the processor, the number of threads and the date. Benchmarks that print tables in place of rows add their output
to `runs.jsonl` in that folder.
"""

import contextlib
import io
import json
import os
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = [str(ROOT / folder) for folder in ("benchmarks", "examples", "tests/support")]
sys.path[:0] = FOLDERS
os.environ["PYTHONPATH"] = os.pathsep.join([*FOLDERS, os.environ.get("PYTHONPATH", "")])  # for processes they start

from provenance import provenance, results_folder  # noqa: E402 (the path comes first)

PACKAGES = {
    "accelerator": "accelerator",
    "cost": "cost",
    "coverage": "wild",
    "language": "language",
    "lowdata": "lowdata",
    "networks": "networks",
    "pretrained": "pretrained",
    "published": "published",
    "reliability": "reliability",
    "reproductions": "papers",
    "shapley": "shapley",
    "sparsity": "sparsity",
    "speed": "speed",
}
PRINTED = {"networks", "pretrained", "reliability", "shapley"}
APPENDED = {"accelerator", "cost"}


class Tee(io.StringIO):
    """A text buffer that also writes to the terminal."""

    def write(self, text: str) -> int:
        """Write a text to both."""
        sys.__stdout__.write(text)
        return super().write(text)

    def flush(self) -> None:
        """Flush the terminal."""
        sys.__stdout__.flush()


def run_benchmark(name: str, options: list[str]) -> None:
    """Run the benchmark of a name, or a module of it such as `reliability.memory`."""
    benchmark, _, module = name.partition(".")
    folder = results_folder(benchmark)
    if benchmark in APPENDED and "--out" not in options:
        options = [*options, "--out", str(folder / "rows.jsonl")]
    sys.argv = [f"python -m benchmarks {name}", *options]
    target = f"{PACKAGES[benchmark]}.{module}" if module else PACKAGES[benchmark]
    if benchmark not in PRINTED:
        runpy.run_module(target, run_name="__main__", alter_sys=True)
        return
    with contextlib.redirect_stdout(Tee()) as output:
        runpy.run_module(target, run_name="__main__", alter_sys=True)
    row = {"name": name, "options": options, "output": output.getvalue().splitlines(), "run": provenance()}
    with (folder / "runs.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def main() -> None:
    """Read the name, and hand the other arguments on."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name.partition(".")[0] not in PACKAGES:
        sys.exit(f"{__doc__}\nNAME is one of {', '.join(PACKAGES)}.")
    run_benchmark(name, sys.argv[2:])


if __name__ == "__main__":
    main()
