"""Several processes: the same bits as one, killed or not, on one host or two."""

import os
import random
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest
import torch

import secateur as sc
from commands import run_python, run_secateur, run_two_ranks, start_python
from comparisons import are_same_scores

INPUTS = ["--program", "model.pt2", "--data", "workshop:data"]
WORDS = ["score", *INPUTS, "--coalitions", "2500", "--out"]
COMMAND = ["-m", "secateur", *WORDS]
LAUNCH = ["-m", "torch.distributed.run"]
WORKSHOP = """
import pytest
import torch

def data():
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(32, 6, generator=generator), torch.arange(32) % 3) for _ in range(3)]
"""


def environment() -> dict[str, str]:
    paths = [".", *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a program, its data and the scores of one process."""
    folder = tmp_path_factory.mktemp("ranks")
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(6, 24), torch.nn.ReLU(), torch.nn.Linear(24, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)
    )
    batch = torch.export.Dim("batch")
    torch.export.save(
        torch.export.export(model, (torch.randn(2, 6),), dynamic_shapes=({0: batch},)), folder / "model.pt2"
    )
    (folder / "workshop.py").write_text(WORKSHOP)
    done = run_secateur(folder, *WORDS, "one")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def shop(scored: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    return shutil.copytree(scored, tmp_path / "shop")


def scores_in(folder: Path, *names: str) -> list[sc.Scores]:
    """Return the scores that runs wrote into folders of some names."""
    return [sc.Scores.load(folder / name / "scores.safetensors") for name in names]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def workers(launcher: int | None) -> list[int]:
    """The processes that a launcher has started."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children")
    return [int(child) for child in children.read_text().split()] if children.exists() else []


def test_two_hosts_give_the_same_bits_as_one_process_and_one_of_them_writes(shop: Path) -> None:
    address = ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
    hosts = [
        start_python(
            shop, *LAUNCH, "--nnodes", "2", "--node-rank", str(host), *address, *COMMAND, "hosts",
            environment=environment(),
        ) for host in (0, 1)
    ]  # fmt: skip
    ends = [host.completed() for host in hosts]
    printed = "".join(end.stdout + end.stderr for end in ends)
    assert [end.returncode for end in ends] == [0, 0], printed
    assert printed.count("written to") == 1
    assert are_same_scores(*scores_in(shop, "hosts", "one"))


def test_a_killed_worker_costs_only_its_unfinished_blocks(shop: Path) -> None:
    """Killed at a random moment, the launcher starts the workers anew, and they go on from the checkpoint."""
    command = [*LAUNCH, "--standalone", "--nproc-per-node", "2", "--max-restarts", "5", *COMMAND, "killed"]
    chance, kills = random.Random(0), 0
    run = start_python(shop, *command, "--checkpoint", "part.safetensors", environment=environment())
    while run.process.is_alive() and kills < 2:
        time.sleep(2 + 3 * chance.random())
        alive = workers(run.process.pid)
        if run.process.is_alive() and alive:
            os.kill(chance.choice(alive), signal.SIGKILL)
            kills += 1
    done = run.completed()
    assert done.returncode == 0, done.stderr
    assert kills > 0
    assert are_same_scores(*scores_in(shop, "killed", "one"))


def test_a_damaged_checkpoint_ends_all_processes(shop: Path) -> None:
    """An error in the first process is raised in the other, which would wait for it otherwise."""
    (shop / "scores.part").write_bytes(b"nothing")
    for done in run_two_ranks(shop, *COMMAND, "two", "--checkpoint", "scores.part"):
        assert done.returncode != 0
        assert "scores.part" in done.stderr
    assert not (shop / "two").exists()


PRUNING = """
import hashlib, sys, torch
import secateur as sc
from secateur.utils.distributed import process_rank
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
sizes = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
model = LlamaForCausalLM(LlamaConfig(**sizes, num_key_value_heads=2)).eval()
tokens = torch.randint(0, 64, (32, 8), generator=torch.Generator().manual_seed(1))
texts = []
with sc.shared_processes():
    for options in (dict(by="shapley", coalitions=40, kinds="neurons", repair="refit"),
                    dict(kinds=("neurons", "heads", "blocks"))):
        result = sc.prune(model, tokens, {"params": 0.7}, progress=False, **options)
        digest = hashlib.sha256()
        for name, tensor in result.model.state_dict().items():
            digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
        texts += [digest.hexdigest(), *(line for line in str(result.report).splitlines() if "divergence" in line)]
    open(f"{sys.argv[1]}-{process_rank()}", "w").write("\\n".join(texts))
"""


def test_prune_of_a_language_model_gives_the_same_bits_in_two_processes_as_in_one(tmp_path: Path) -> None:
    """The processes share the scores, the curves, the simulated plans and the prices of blocks."""
    pytest.importorskip("transformers")
    (tmp_path / "pruning.py").write_text(PRUNING)
    for done in (run_python(tmp_path, "pruning.py", "one"), *run_two_ranks(tmp_path, "pruning.py", "two")):
        assert done.returncode == 0, done.stderr
    assert len({(tmp_path / name).read_text() for name in ("one-0", "two-0", "two-1")}) == 1


CHECKPOINT = """
import hashlib, os, sys, torch
import secateur as sc
from secateur.allocation.simulate import PlanSimulator
from secateur.recovery import repair_runner
from secateur.utils.distributed import process_rank

torch.manual_seed(0)
model = torch.nn.Sequential(
    torch.nn.Linear(6, 24), torch.nn.ReLU(), torch.nn.Linear(24, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3)
)
data = torch.randn(96, 6, generator=torch.Generator().manual_seed(1)).split(16)
simulated, refits = PlanSimulator._measure_divergences, repair_runner.refit
counts = {"simulations": 0, "refits": 0}

def simulate(self, kept, layers, folds):
    counts["simulations"] += layers is None
    return simulated(self, kept, layers, folds)

def refit(*arguments, **options):
    counts["refits"] += 1
    if sys.argv[2] == "stopped" and counts["refits"] == 2:
        raise KeyboardInterrupt
    return refits(*arguments, **options)

PlanSimulator._measure_divergences, repair_runner.refit = simulate, refit
with sc.shared_processes():
    try:
        result = sc.prune(model, data, {"macs": 0.5}, repair="refit", checkpoint=sys.argv[1], progress=False)
    except KeyboardInterrupt:
        os._exit(0)
    digest = hashlib.sha256()
    for name, tensor in result.model.state_dict().items():
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    open(f"{sys.argv[2]}-{process_rank()}", "w").write(f"{digest.hexdigest()} {counts}")
"""


def test_processes_that_share_a_run_go_on_from_its_checkpoint(tmp_path: Path) -> None:
    """Stopped in both at the second refit, the run goes on with what was done before, to the bits of one process."""
    (tmp_path / "pruning.py").write_text(CHECKPOINT)
    whole = run_python(tmp_path, "pruning.py", "whole", "whole")
    stopped = run_two_ranks(tmp_path, "pruning.py", "half", "stopped")
    for done in (whole, *stopped, *run_two_ranks(tmp_path, "pruning.py", "half", "two")):
        assert done.returncode == 0, done.stderr
    texts = {name: (tmp_path / name).read_text().split(" ", 1) for name in ("whole-0", "two-0", "two-1")}
    assert len({digest for digest, _ in texts.values()}) == 1
    assert "'simulations': 0" in texts["two-0"][1] and "'simulations': 0" in texts["two-1"][1]
    assert "'simulations': 0" not in texts["whole-0"][1]


TASKS = """
import os, sys, warnings
import torch
import secateur as sc
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from secateur.utils.distributed import process_count, process_rank
from secateur.utils.shared_tasks import map_tasks
from secateur.utils.time_budget import TimeBudget

warnings.simplefilter("ignore")
rank_of_torchrun = int(os.environ["RANK"])
lines = []

def attempt(title, work):
    try:
        lines.append(f"{title}: {work()}")
    except Exception as failure:
        lines.append(f"{title}: {type(failure).__name__} {failure} {getattr(failure, '__notes__', [])}")

def task(number):
    if number == 3:
        raise ValueError("three")
    if number == 7:
        raise sc.SecateurError("seven")
    return number**2

def model_and_data(seed):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    return model, torch.randn(64, 4, generator=torch.Generator().manual_seed(seed))

def prune(seed=0, keep=0.5, **options):
    sc.prune(*model_and_data(seed), {"macs": keep}, progress=False, **options)

def prune_sharded():
    model, data = model_and_data(0)
    sharded = fully_shard(model_and_data(0)[0], mesh=init_device_mesh("cpu", (2,)))
    model.load_state_dict(get_model_state_dict(sharded, options=StateDictOptions(full_state_dict=True)))
    sc.trace(model, data)
    sc.prune(sharded, data, {"macs": 0.5}, progress=False)

def fails_in_the_second(output, target):
    if process_rank() == 1:
        raise KeyError("mine")
    return torch.nn.functional.cross_entropy(output, output.argmax(1), reduction="none")

torch.distributed.init_process_group("gloo")  # as of a program that trains
if rank_of_torchrun == 0:
    attempt("alone", prune)
torch.distributed.barrier()
with sc.shared_processes():
    assert process_count() == 2 and process_rank() == rank_of_torchrun
    attempt("uneven", lambda: map_tasks("squares", [0, 1, 2, 4, 5], task, [1, 9, 1, 1, 1]))
    attempt("one", lambda: map_tasks("squares", [2], lambda number: (number, process_rank())))
    attempt("failing", lambda: map_tasks("squares", [0, 1, 2, 3, 4], task))
    attempt("failing by name", lambda: map_tasks("squares", [0, 7], task))
    attempt("not sent", lambda: map_tasks("functions", [1, 2], lambda number: lambda: number))
    attempt("other data", lambda: prune(process_rank()))
    attempt("other budget", lambda: prune(keep=0.5 + 0.1 * process_rank()))
    attempt("other functions", lambda: prune() if process_rank() else sc.score(sc.trace(*model_and_data(0)), by="l2"))
    attempt("fails in one", lambda: prune(loss=fails_in_the_second))
    attempt("other folders", lambda: prune(checkpoint=f"folder-{process_rank()}"))
    attempt("checkpoint of another run", lambda: [prune(checkpoint="folder"), prune(1, checkpoint="folder")])
    attempt("sharded", prune_sharded)
    budget = TimeBudget(10.0, clock=iter([0.0, 9.0, 9.0]).__next__ if process_rank() else lambda: 0.0)
    attempt("clock", lambda: budget.is_spent())
    attempt("seconds", lambda: prune(seconds=600))
    if process_rank() == 0:
        attempt("after an end", lambda: map_tasks("squares", [0, 1], task))
    open(f"lines-{process_rank()}", "w").write("\\n".join(lines))
    os._exit(0)
"""


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """Return the results of tasks and functions in two processes, by title."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "tasks.py").write_text(TASKS)
    for done in run_two_ranks(folder, "tasks.py"):
        assert done.returncode == 0, done.stderr
    texts = [(folder / f"lines-{rank}").read_text().splitlines() for rank in (0, 1)]
    return [dict(line.split(": ", 1) for line in text) for text in texts]


def test_one_process_of_a_group_prunes_alone_outside_of_the_context(lines: list[dict[str, str]]) -> None:
    assert lines[0]["alone"] == "None"


def test_tasks_are_done_once_and_every_process_has_all_results(lines: list[dict[str, str]]) -> None:
    for results in lines:
        assert results["uneven"] == "[0, 1, 4, 16, 25]"
        assert results["one"] == "[(2, 0)]"


def test_a_failing_task_ends_both_processes_with_its_error(lines: list[dict[str, str]]) -> None:
    assert lines[1]["failing"] == "ValueError three []"
    assert lines[0]["failing"] == "ProcessError process 1 failed at 'squares': ValueError: three []"
    assert lines[1]["failing by name"] == "SecateurError seven []"
    assert lines[0]["failing by name"] == "SecateurError seven [\"raised in process 1, at 'squares'\"]"
    assert all(results["not sent"].startswith("ProcessError process 0 failed at 'functions, 2'") for results in lines)


def test_processes_that_work_on_other_things_are_told_so(lines: list[dict[str, str]]) -> None:
    for rank, results in enumerate(lines):
        assert results["other data"].startswith(
            f"ProcessError process {1 - rank} was given something else than process"
        )
        assert "the examples are others" in results["other data"]
        assert "keep was" in results["other budget"]
        assert "process 1 is at 'prune: begin', process 0 at 'score: begin'" in results["other functions"]
        assert results["other folders"].startswith("CheckpointError the processes have other files in folder-")
        assert results["checkpoint of another run"].startswith(
            "CheckpointError the checkpoint folder is of another run: the "
        )


def test_an_error_in_one_process_is_raised_in_the_other(lines: list[dict[str, str]]) -> None:
    assert all("KeyError: 'mine'" in results["fails in one"] for results in lines)
    assert "raised in process 1" in lines[0]["fails in one"]


def test_models_sharded_over_processes_are_refused(lines: list[dict[str, str]]) -> None:
    for results in lines:
        assert results["sharded"].startswith("TraceError 0 (Linear) is sharded over processes")
        assert "secateur.shared_processes()" in results["sharded"]


def test_the_clock_of_the_first_process_counts(lines: list[dict[str, str]]) -> None:
    assert [results["clock"] for results in lines] == ["False", "False"]
    assert [results["seconds"] for results in lines] == ["None", "None"]


def test_the_end_of_a_process_is_an_error_in_the_other(lines: list[dict[str, str]]) -> None:
    assert lines[0]["after an end"].startswith("ProcessError another process ended before 'squares, 2")
