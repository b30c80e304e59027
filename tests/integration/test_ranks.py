"""Several processes: the same bits as one, killed or not, on one host or two."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import secateur as sc

INPUTS = ["--program", "model.pt2", "--data", "workshop:data"]
COMMAND = ["-m", "secateur", "score", *INPUTS, "--coalitions", "2500", "--out"]
LAUNCH = [sys.executable, "-m", "torch.distributed.run"]
WORKSHOP = """
import pytest
import torch

def data():
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(32, 6, generator=generator), torch.arange(32) % 3) for _ in range(3)]
"""


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "."}


def shop(folder: Path) -> Path:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(6, 24), torch.nn.ReLU(), torch.nn.Linear(24, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)
    )
    batch = torch.export.Dim("batch")
    torch.export.save(
        torch.export.export(model, (torch.randn(2, 6),), dynamic_shapes=({0: batch},)), folder / "model.pt2"
    )
    (folder / "workshop.py").write_text(WORKSHOP)
    subprocess.run([sys.executable, *COMMAND, "one"], cwd=folder, env=environment(), check=True, capture_output=True)
    return folder


def same(folder: Path, one: str, other: str) -> bool:
    found, expected = (sc.Scores.load(folder / name / "scores.safetensors") for name in (one, other))
    return list(found) == list(expected) and all(
        torch.equal(getattr(found[name], part), getattr(expected[name], part))
        for name in expected for part in ("values", "errors", "errors_here", "per_example")
    )  # fmt: skip


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def workers(launcher: int) -> list[int]:
    """The processes that a launcher has started."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children")
    return [int(child) for child in children.read_text().split()] if children.exists() else []


def test_two_processes_or_two_hosts_give_the_same_bits_as_one(tmp_path: Path) -> None:
    folder = shop(tmp_path)
    two = [*LAUNCH, "--standalone", "--nproc-per-node", "2", *COMMAND, "two"]
    done = subprocess.run(two, cwd=folder, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written to") == 1
    assert same(folder, "two", "one")
    place = ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    hosts = [
        subprocess.Popen(
            [*LAUNCH, "--nnodes", "2", "--node-rank", str(host), *place, *COMMAND, "hosts"],
            cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) for host in (0, 1)
    ]  # fmt: skip
    assert [host.wait(timeout=300) for host in hosts] == [0, 0]
    assert same(folder, "hosts", "one")


def test_a_killed_worker_costs_only_its_unfinished_blocks(tmp_path: Path) -> None:
    """Killed at a random moment, the launcher starts the workers anew, and they go on from the checkpoint."""
    folder = shop(tmp_path)
    command = [*LAUNCH, "--standalone", "--nproc-per-node", "2", "--max-restarts", "5", *COMMAND, "killed"]
    chance, kills = random.Random(0), 0
    run = subprocess.Popen(
        [*command, "--checkpoint", "part.safetensors"],
        cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while run.poll() is None and kills < 2:
        time.sleep(2 + 3 * chance.random())
        alive = workers(run.pid)
        if run.poll() is None and alive:
            os.kill(chance.choice(alive), signal.SIGKILL)
            kills += 1
    assert run.wait(timeout=300) == 0
    assert kills > 0
    assert same(folder, "killed", "one")


def test_a_damaged_checkpoint_ends_all_processes(tmp_path: Path) -> None:
    """What fails in the first process fails in the other, which would wait for it else."""
    folder = shop(tmp_path)
    (folder / "scores.part").write_bytes(b"nothing")
    command = [*LAUNCH, "--standalone", "--nproc-per-node", "2", *COMMAND, "two", "--checkpoint", "scores.part"]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert done.stderr.count("scores.part") >= 2
    assert not (folder / "two").exists()


PRUNING = """
import hashlib, sys, torch
import secateur as sc
from secateur.utils.distributed import launched_processes, process_rank
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
sizes = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
model = LlamaForCausalLM(LlamaConfig(**sizes, num_key_value_heads=2)).eval()
tokens = torch.randint(0, 64, (32, 8), generator=torch.Generator().manual_seed(1))
with launched_processes():
    result = sc.prune(
        model, tokens, {"params": 0.7}, by="shapley", coalitions=40, kinds="neurons", repair="refit", progress=False
    )
    digest = hashlib.sha256()
    for name, tensor in result.model.state_dict().items():
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    open(f"{sys.argv[1]}-{process_rank()}", "w").write(digest.hexdigest())
"""


def test_prune_of_a_language_model_gives_the_same_bits_in_two_processes_as_in_one(tmp_path: Path) -> None:
    """The processes share the blocks of Shapley values; each of them plans, cuts and repairs."""
    pytest.importorskip("transformers")
    (tmp_path / "pruning.py").write_text(PRUNING)
    two = [*LAUNCH, "--standalone", "--nproc-per-node", "2"]
    for command, name in (([sys.executable], "one"), (two, "two")):
        words = [*command, "pruning.py", name]
        done = subprocess.run(words, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    assert len({(tmp_path / name).read_text() for name in ("one-0", "two-0", "two-1")}) == 1
