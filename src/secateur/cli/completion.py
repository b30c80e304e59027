"""The choices of options, and their completion in a shell.

The names stand here because the tables that they are from belong to modules that import torch; a test compares them.
"""

from collections.abc import Callable, Iterable

ABLATIONS = ("mean", "zero", "impute")
ALLOCATIONS = ("auto", "uniform", "global", "raw", "loss")
REPAIRS = ("mean", "batchnorm", "refit", "adapt", "tune", "none")
TARGETS = ("auto", "cpu", "onnxruntime", "any", "avx512", "avx2", "arm", "cuda", "tensorrt", "mps")
DEVICES = ("cpu", "cuda", "mps")


def registered_criteria() -> list[str]:
    """Return the names of the criteria; torch is imported for them."""
    from secateur.importance.registry import criteria

    return list(criteria())


def completer(names: Iterable[str] | Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Return a function that completes an option's value; of several with commas, the last.

    Args:
        names: the names, or a function that returns them when they are needed.
    """

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in (names() if callable(names) else names) if name.startswith(last)]

    return complete


def choices(names: Iterable[str]) -> str:
    """Return names as the help shows choices."""
    return f"[{'|'.join(names)}]"
