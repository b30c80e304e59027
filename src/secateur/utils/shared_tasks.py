"""Independent tasks, divided among the processes that share the work of a public function."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from secateur.utils.collected_warnings import own_warnings, warn
from secateur.utils.distributed import (
    exchange,
    failures_exchanged,
    is_shared,
    process_count,
    process_rank,
    shared_work,
)
from secateur.utils.progress import counted, track

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")


def map_tasks(
    name: str,
    tasks: Sequence[Task],
    work: Callable[[Task], Outcome],
    costs: Sequence[float] | None = None,
    digest: str = "",
) -> list[Outcome]:
    """Do independent tasks, each in one of the processes, and return all results in the order of the tasks.

    A task is the same computation wherever it runs, so the results are those of one process, to the bit. Warnings that
    a task gives are given in every process.

    Args:
        name: what the tasks are, for the progress.
        tasks: the tasks, the same in every process.
        work: does a task; what it returns can be sent, with tensors on the CPU.
        costs: about what each task takes, in any unit; by default all take the same.
        digest: of the tasks, which differs where those of another process are others.

    Raises:
        ProcessError: another process failed, has ended, or does something else.

    Examples:
        >>> map_tasks("squares", [1, 2, 3], lambda number: number**2)
        [1, 4, 9]
    """
    return map_shares(name, tasks, lambda share: [work(task) for task in track(share, name)], costs, digest)


def map_shares(
    name: str,
    tasks: Sequence[Task],
    work: Callable[[Sequence[Task]], Sequence[Outcome]],
    costs: Sequence[float] | None = None,
    digest: str = "",
) -> list[Outcome]:
    """Do independent tasks as `map_tasks` does, where a process does all of its own at once.

    Args:
        name: what the tasks are.
        tasks: the tasks.
        work: does some tasks, in their order; it is not called for none.
        costs: about what each task takes.
        digest: of the tasks.
    """
    if not is_shared():
        return list(work(tasks)) if tasks else []
    shares = divided_tasks(costs or [1.0] * len(tasks), process_count())
    share = [tasks[number] for number in shares[process_rank()]]
    warnings_before = len(own_warnings())
    with failures_exchanged(name), working_alone():
        results = list(work(share)) if share else []
    arisen = [(str(warning), warning.subject, warning.kind) for warning in own_warnings()[warnings_before:]]
    with counted(f"{name}, by other processes"):
        results_by_rank = exchange(f"{name}, {len(tasks)} {digest}".rstrip(), (results, arisen))
    for rank, (_, others) in enumerate(results_by_rank):
        for message, subject, kind in others if rank != process_rank() else []:
            warn(message, subject, kind)
    by_number = {
        number: result
        for numbers, (results_of_rank, _) in zip(shares, results_by_rank, strict=True)
        for number, result in zip(numbers, results_of_rank, strict=True)
    }
    return [by_number[number] for number in range(len(tasks))]


def divided_tasks(costs: Sequence[float], processes: int) -> list[list[int]]:
    """Divide tasks among processes: the longest first, each to the process that has the least to do.

    Args:
        costs: about what each task takes.
        processes: the number of processes.

    Returns:
        For each process the numbers of its tasks, ascending.

    Examples:
        >>> divided_tasks([1, 5, 1, 3, 1], 2)
        [[1, 4], [0, 2, 3]]
    """
    totals, shares = [0.0] * processes, [list[int]() for _ in range(processes)]
    for number in sorted(range(len(costs)), key=lambda number: -costs[number]):
        least = totals.index(min(totals))
        totals[least] += costs[number]
        shares[least].append(number)
    return [sorted(share) for share in shares]


def map_sharded(blocks: Sequence[int], make: Callable[[int], Outcome]) -> list[Outcome]:
    """Compute `make(block)` for all blocks, each process a share of them, and gather all results in order.

    An exception in one process is raised in all.
    """
    count = process_count()
    if count == 1:
        return [make(block) for block in blocks]
    with failures_exchanged("blocks"):
        results = [make(block) for block in blocks[process_rank() :: count]]
    results_by_rank = exchange("blocks", results)
    return [results_by_rank[block % count][block // count] for block in range(len(blocks))]


def works_alone() -> bool:
    """Return whether this process does a task that other processes do not do."""
    work = shared_work.get()
    return work is not None and work.is_alone


@contextmanager
def working_alone() -> Iterator[None]:
    """Do a task of this process alone: nothing within is shared with the others."""
    work = shared_work.get()
    assert work is not None
    work.is_alone = True
    try:
        yield
    finally:
        work.is_alone = False
