"""The choices of options, and their completion in a shell."""

from collections.abc import Callable, Iterable

from secateur.allocation.build_sequence import ORDERS
from secateur.evaluation.channel_steps import AUTO
from secateur.recovery.chain import CLOSED_FORM, TRAINED

ABLATIONS = ("mean", "zero", "impute")
ALLOCATIONS = (AUTO, *ORDERS)
REPAIRS = (*CLOSED_FORM, *TRAINED, "none")
DEVICES = ("cpu", "cuda", "mps")


def completing(names: Iterable[str]) -> Callable[[str], list[str]]:
    """Return a function that completes an option's value from these names; of several with commas, the last."""
    known = tuple(names)

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in known if name.startswith(last)]

    return complete


def choices(names: Iterable[str]) -> str:
    """Return names as the help shows choices."""
    return f"[{'|'.join(names)}]"
