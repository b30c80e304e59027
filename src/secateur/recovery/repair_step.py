"""The result of one step of a repair."""

from dataclasses import dataclass

from secateur.utils.collected_warnings import warn

OVERFITTED = 3.0
NEAR = 0.05


@dataclass(frozen=True)
class RepairStep:
    """The result of one step of a repair.

    Args:
        name: the repair's.
        before, after: the divergence from the dense network on examples held out of it.
        fitted: the divergence afterwards on as many of the examples that it was fitted on.
        kept: whether the step was kept.
        temperature: at which class scores were compared.
        training: how a training ran, "" for other repairs.
    """

    name: str
    before: float
    after: float
    fitted: float
    kept: bool
    temperature: float = 1.0
    training: str = ""

    @property
    def overfitted(self) -> bool:
        """True if the fitted examples are much nearer than the held-out ones, which are far."""
        return self.after > max(OVERFITTED * self.fitted, NEAR)

    def warn(self) -> None:
        """Warn of an overfitted step."""
        if not self.kept:
            warn(f"{self.name} was left out: it did not bring the cut network nearer to the dense one")
        elif self.overfitted:
            warn(
                f"{self.name} fits the examples used much better (divergence {self.fitted:.4f}) than others "
                f"({self.after:.4f}); more of them would help"
            )

    def __str__(self) -> str:
        at = "" if self.temperature == 1 else f", at temperature {self.temperature:g}"
        text = f"{self.name}: divergence {self.before:.4f} -> {self.after:.4f} held out, {self.fitted:.4f} fitted{at}"
        text = f"{text} ({self.training})" if self.training else text
        return text if self.kept else f"{text}, left out"
