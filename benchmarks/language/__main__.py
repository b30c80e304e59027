"""Prune SmolLM2-135M by Secateur and by published methods, and measure perplexity, time and memory.

    python -m benchmarks language --data DIR [--methods secateur FLAP] [--budgets 0.2] [--sequences 32]

DIR holds `SmolLM2-135M-Instruct.Q4_1.gguf` and `wikitext2.zip` (`valid.txt`, `test.txt`). Calibration: sequences of 256
tokens of WikiText-2's validation text. Test: the first tokens of its test text in windows of 512. A budget is the
fraction of the blocks' parameters that are removed. Every method gives two rows, before and after the same repair.
Seconds are processor seconds of one thread, from the scores to the repaired network. Each step runs in a process of its
own, whose peak memory is in the row, and each row is written to `benchmarks/results/language/rows.jsonl` as soon as it
is measured. With `--device cuda` the seconds are of the wall clock, the memory is what torch held on the device, and
all steps run in one process. `--out FILE` names another file of rows. Needs transformers and gguf.
"""

import argparse
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from provenance import results_folder
from rows import append_row
from wild.isolation import run_isolated

from language.methods import METHODS, WHOLE_CALLS, Method, network_of, prune, prune_whole, score
from language.subject import LENGTH, LanguageSubject, Row, load_subject, measure_quality, peak_bytes, seconds_on

BUDGETS = (0.2, 0.1, 0.3, 0.5)
LIMIT = 4 * 3600


def main() -> None:
    """Read the options, and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=["dense", *METHODS, *WHOLE_CALLS])
    parser.add_argument("--budgets", nargs="+", type=float, default=list(BUDGETS))
    parser.add_argument("--sequences", type=int, default=128)
    parser.add_argument("--test-tokens", type=int, default=16_384)
    parser.add_argument("--scores", type=Path, help="a folder that scores are kept in, for further budgets")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--out", type=Path, help="the file that rows are appended to")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    subject = load_subject(args.data, args.sequences, args.test_tokens, args.device)
    setting: Row = {"sequences": args.sequences, "length": LENGTH, "test_tokens": args.test_tokens}
    if args.device != "cpu":
        setting["device"] = torch.cuda.get_device_name()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.scores or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for row in language_rows(args, subject, folder):
            print_and_append({**setting, **row}, args.out or results_folder("language") / "rows.jsonl")


def language_rows(args: argparse.Namespace, subject: LanguageSubject, folder: Path) -> Iterator[Row]:
    """Yield the rows of all methods, each method at all budgets."""
    for name in args.methods:
        if name == "dense":
            yield {"method": "dense", **run_step(partial(dense, subject), subject)}
            continue
        if name in WHOLE_CALLS:
            for removed in args.budgets:
                row = run_step(partial(prune_whole, subject, removed, WHOLE_CALLS[name]), subject)
                yield {"method": name, "budget": removed, **row}
            continue
        method = METHODS[name]
        file = folder / f"{_title(name, method)}-{args.sequences}.safetensors"
        about = file.with_suffix(".json")
        network_of(method, subject)  # traced once, before the processes of the steps start
        if not about.exists():
            about.write_text(json.dumps(run_step(partial(score, method, subject, file), subject)))
        scored = json.loads(about.read_text())
        for removed in args.budgets:
            both = run_step(partial(_prune_step, method, subject, removed, file), subject)
            for row in both.get("rows", [both]):
                yield {"method": name, "budget": removed, **_with_score(row, scored)}


def run_step(step: Callable[[], Row], subject: LanguageSubject) -> Row:
    """Run a step in a process of its own; in this one where the model is on an accelerator, which can't be forked."""
    if subject.device.type == "cpu":
        return run_isolated(step, LIMIT)
    torch.cuda.reset_peak_memory_stats()
    return step()


def _title(name: str, method: Method) -> str:
    """Return the name of a file of scores: variants of a method that rank the same units share them."""
    return (name.partition(",")[0] if method.whole is None else name.replace(", ", "-")).lower()


def _prune_step(*args: Any) -> Row:
    return {"rows": prune(*args)}


def _with_score(row: Row, scored: Row) -> Row:
    """Add the seconds of the scores, and the peak of both steps."""
    if "failed" in row or "failed" in scored:
        return {**scored, **row}
    return {
        **row,
        "score_seconds": scored["score_seconds"],
        "seconds": row["seconds"] + scored["score_seconds"],
        "peak_bytes": max(row["peak_bytes"], scored["peak_bytes"]),
    }


@torch.no_grad()
def dense(subject: LanguageSubject) -> Row:
    """The dense network, with the processor seconds of one forward pass over the calibration sequences."""
    start = seconds_on(subject.device)
    for batch in subject.data:
        subject.model(**batch, use_cache=False)
    seconds = seconds_on(subject.device) - start
    return {
        "repair": "none",
        "pass_seconds": seconds,
        "peak_bytes": peak_bytes(subject.device),
        **measure_quality(subject.model, subject.windows),
    }


def print_and_append(row: Row, results: Path) -> None:
    """Print a row, and append it to the results."""
    print(json.dumps(row), flush=True)
    append_row(results, row)


if __name__ == "__main__":
    main()
