"""Measure the memory of `prune`, stage by stage, on a Llama with random weights.

    python -m benchmarks language.memory [--size 100M] [--dtype float32] [--keep 0.8] [--mapped] [--out FILE]

The network is built and pruned in a process of its own, on one thread. Figures are the largest resident memory of the
process in each stage beyond that before the model was made, in sizes of the model: `anonymous` is memory that only swap
space could free, `file` are pages of files (libraries, mapped weights, temporary files), which the system drops when
memory is short. With `--mapped` the model is written to a folder first and loaded from it as `secateur prune` does.
Freed memory is returned to the system (`MALLOC_MMAP_THRESHOLD_`), so that the figures are those of memory in use. A row
is added to `benchmarks/results/language/memory.jsonl`. Needs transformers.
"""

import argparse
import gc
import os
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from cost.stages import STAGES, StageSampler, stage_of
from provenance import results_folder
from rows import append_row
from torch import nn

import secateur as sc

# blocks, width, neurons, heads, heads of keys and values, words
SIZES = {
    "5M": (6, 256, 640, 4, 2, 1_000),
    "25M": (8, 512, 1_280, 8, 4, 1_000),
    "100M": (12, 768, 2_304, 12, 4, 8_000),
    "500M": (24, 1_280, 3_456, 20, 4, 16_000),
    "1B": (22, 2_048, 5_632, 32, 4, 16_000),
}
LENGTH = 8
INTERVAL = 0.02
RETURNED = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 20)}
Row = dict[str, Any]


def main() -> None:
    """Read the options, measure in a process of its own, and print and append the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="100M", choices=SIZES)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--keep", type=float, default=0.8, help="the fraction of the parameters that is kept")
    parser.add_argument("--mapped", action="store_true", help="load the model from a folder")
    parser.add_argument("--by", default="obs")
    parser.add_argument("--allocation", default="auto")
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--repair", nargs="*", default=["refit", "adapt"])
    parser.add_argument("--out", type=Path, help="the file that the row is appended to")
    parser.add_argument("--measured", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.measured:
        command = [sys.executable, "-m", "benchmarks", "language.memory", "--measured", *sys.argv[1:]]
        raise SystemExit(subprocess.run(command, env={**os.environ, **RETURNED}, check=False).returncode)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    row = measure_memory(args)
    print_row(row)
    append_row(args.out or results_folder("language") / "memory.jsonl", row)


def measure_memory(args: argparse.Namespace) -> Row:
    """Prune a model, and return the largest memory of each stage."""
    _import_by_pruning()
    with tempfile.TemporaryDirectory() as folder:
        if args.mapped:
            random_llama(SIZES[args.size], args.dtype).save_pretrained(folder)
            gc.collect()
        with MemorySampler() as sampler:
            model = load_folder(folder) if args.mapped else random_llama(SIZES[args.size], args.dtype)
            size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
            words = SIZES[args.size][-1]
            data = [{"input_ids": torch.randint(0, words, (4, LENGTH))} for _ in range(args.sequences // 4)]
            start = time.process_time()
            result = sc.prune(
                model, data, {"params": args.keep}, args.by, allocation=args.allocation, repair=args.repair or None,
                test=data[:1], progress=False,
            )  # fmt: skip
            seconds = time.process_time() - start
    kept = sum(weight.numel() * weight.element_size() for weight in result.model.parameters())
    settings = ("size", "dtype", "mapped", "by", "allocation", "repair", "sequences", "keep")
    return {
        **{name: getattr(args, name) for name in settings},
        "bytes": size,
        "small": kept / size,
        "seconds": seconds,
        "stages": {stage: peak.over(sampler.before, size) for stage, peak in sampler.peaks.items()},
    }


def _import_by_pruning() -> None:
    """Prune a tiny model, so that everything that tracing and the stages import is in memory before."""
    tiny = random_llama((1, 32, 64, 2, 1, 50), "float32")
    tokens: torch.Tensor = torch.randint(0, 50, (4, LENGTH))
    sc.prune(tiny, {"input_ids": tokens}, {"params": 0.8}, "l2", allocation="uniform", progress=False)


def random_llama(size: tuple[int, ...], dtype: str) -> nn.Module:
    """Return a Llama of a size, as in `SIZES`, with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM  # noqa: PLC0415 (needs packages that the others don't)

    torch.manual_seed(0)
    blocks, width, neurons, heads, groups, words = size
    config = LlamaConfig(
        num_hidden_layers=blocks, hidden_size=width, intermediate_size=neurons, num_attention_heads=heads,
        num_key_value_heads=groups, vocab_size=words, max_position_embeddings=64, tie_word_embeddings=True,
        dtype=getattr(torch, dtype),
    )  # fmt: skip
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        model: nn.Module = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(torch.float32)
    return model.eval()


def load_folder(folder: str) -> nn.Module:
    """Return the model of a folder, as the command line loads it."""
    from secateur.cli.named_models import model_from  # noqa: PLC0415 (it imports typer)

    return model_from(f"hf:{folder}", None, None)


@dataclass
class Memory:
    """Resident memory of the process, in bytes."""

    anonymous: int = 0
    file: int = 0
    total: int = 0

    @staticmethod
    def now() -> "Memory":
        """Read the process's memory."""
        status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        sizes = {
            line.split(":")[0]: 1024 * int(line.split()[1]) for line in status if line.startswith(("Rss", "VmRSS"))
        }
        return Memory(sizes["RssAnon"], sizes["RssFile"] + sizes["RssShmem"], sizes["VmRSS"])

    def largest(self, other: "Memory") -> "Memory":
        """Return the larger of each."""
        return Memory(max(self.anonymous, other.anonymous), max(self.file, other.file), max(self.total, other.total))

    def over(self, before: "Memory", size: int) -> dict[str, float]:
        """Return what is beyond the memory before, in multiples of a size."""
        return {
            "anonymous": (self.anonymous - before.anonymous) / size,
            "file": (self.file - before.file) / size,
            "total": (self.total - before.total) / size,
        }


class MemorySampler(StageSampler):
    """The largest memory of the process by stage."""

    def __init__(self) -> None:
        super().__init__(INTERVAL)
        self.peaks: dict[str, Memory] = {}

    def begin(self) -> None:
        """Measure the memory before."""
        gc.collect()
        self.before = Memory.now()

    def measure(self, frame: FrameType | None) -> None:
        """Measure the memory of the stage that runs."""
        stage = stage_of(frame)
        self.peaks[stage] = self.peaks.get(stage, Memory()).largest(Memory.now())


def print_row(row: Row) -> None:
    """Print the largest memory of each stage."""
    print(
        f"{row['size']} {row['dtype']}: {row['bytes'] / 1e6:.0f} MB, small {row['small']:.2f}, {row['seconds']:.0f} s"
    )
    print(f"{'stage':10} anonymous   file  total, in models")
    for stage in STAGES:
        if stage in row["stages"]:
            peak = row["stages"][stage]
            print(f"{stage:10} {peak['anonymous']:9.2f} {peak['file']:6.2f} {peak['total']:6.2f}")


if __name__ == "__main__":
    main()
