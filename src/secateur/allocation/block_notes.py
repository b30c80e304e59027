"""The note of a plan on the blocks that it leaves out, and on the numbers of blocks that were tried."""

from collections.abc import Iterable

from secateur.allocation.candidate_plans import Candidate
from secateur.utils.plurals import number_of


def with_block_note(best: Candidate, candidates: Iterable[Candidate], power: float) -> Candidate:
    """Add a note on the numbers of blocks that were tried.

    Args:
        best: the plan that is chosen.
        candidates: the plans that were compared, by which blocks they leave out.
        power: the power of the MACs in steps that plans were compared by; 0: those don't count.
    """
    dropped, by_count = best.allocation.dropped, dict[int, Candidate]()
    for candidate in sorted(candidates, key=lambda candidate: candidate.price(power)):
        by_count.setdefault(len(candidate.allocation.dropped), candidate)
    losses = ", ".join(f"{count}: {_plan_loss_text(by_count[count], power)}" for count in sorted(by_count))
    verb = "is" if len(dropped) == 1 else "are"
    blocks = (
        f"{number_of(len(dropped), 'block')} {verb} left out: {', '.join(dropped)}"
        if dropped
        else "no block is left out"
    )
    return best.with_note(f"{blocks}; {best.measure} by how many are: {losses}")


def _plan_loss_text(candidate: Candidate, power: float) -> str:
    """Return the loss of a plan, with the MACs in steps that it keeps if they count."""
    return f"{candidate.loss:.4f}" + (f" ({candidate.steps_kept:.0%} of the MACs in steps)" if power else "")
