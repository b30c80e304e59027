"""kernels.json: which kernel each layer of a fast network has; the schema."""

from typing import Annotated, ClassVar

import msgspec

from secateur.files import Record

KERNELS_FILE = "kernels.json"
Side = Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]
BlockShape = Annotated[tuple[Side, ...], msgspec.Meta(min_length=2, max_length=8)]


class SavedKernels(Record, frozen=True):
    """kernels.json.

    `kernels` are by the names of weights, "dense" where the layer runs as it is; `blocks` are the shapes of unified
    blocks, where there are any.
    """

    FORMAT: ClassVar[str] = "secateur kernels/1"

    format: str
    kernels: dict[str, str]
    blocks: dict[str, BlockShape] = msgspec.field(default_factory=dict)
    checksum: str = ""
