"""The examples that the user gave to a public function, as batches."""

from dataclasses import dataclass

from secateur.data.batch import Batch


@dataclass(frozen=True, eq=False)
class UserExamples:
    """The examples that the user gave, checked against the model.

    Args:
        data: the examples to score, plan and repair with.
        test: other examples to measure on; None where some of `data` are kept away for that.
    """

    data: list[Batch]
    test: list[Batch] | None = None

    @property
    def batches(self) -> list[Batch]:
        """All batches, those of `data` first."""
        return [*self.data, *(self.test or ())]
