"""Records that belong to the process that made them: copies share them, and they can't be pickled."""

from typing import Any, Self, SupportsIndex

from secateur.errors import StorageError


class ProcessBound:
    """The base of frozen records that hold an exported program, whose operators can be neither copied nor pickled."""

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        raise StorageError(
            f"a {type(self).__name__} can't be pickled, nor a plan or a result that holds it: its exported program "
            "belongs to this process. Write result.save(folder), and read it by secateur.load; another process can be "
            "sent result.model, result.scores and result.report"
        )
