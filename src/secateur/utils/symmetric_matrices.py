"""Products, factors and inverses of large symmetric matrices in place, so that each is held once.

A covariance over thousands of features is larger than the weights of its layer: 11,008 features take 970 MB in double
precision. Every operation here takes no more than a block of columns beside the matrix itself.
"""

import torch
from torch import Tensor

from secateur.utils.dtypes import to_widest

COLUMNS = 1024  # of a matrix that are computed at once
PROCESSOR_COLUMNS = 128  # of a product that are computed at once on a processor: the fewer, the less is computed twice


def add_products(gram: Tensor, rows: Tensor) -> None:
    """Add the products of rows (groups, rows, features) with each other to matrices (groups, features, features).

    The products are computed in the precision of the rows and added in that of the matrices, in place: from the
    diagonal down, and copied to the other side.
    """
    transposed_rows, features = rows.transpose(1, 2), rows.shape[2]
    width = PROCESSOR_COLUMNS if rows.device.type == "cpu" else COLUMNS
    for start in range(0, features, width):
        columns = slice(start, start + width)
        gram[:, start:, columns] += (transposed_rows[:, start:] @ rows[..., columns]).to(gram)
    for start in range(width, features, width):
        columns = slice(start, start + width)
        gram[:, :start, columns] = gram[:, columns, :start].mT


def products(rows: Tensor) -> Tensor:
    """Return the sum of products of rows (groups, rows, features), in double precision. (groups, features, features)"""
    groups, _, features = rows.shape
    gram = to_widest(rows[:, :0]).new_zeros(groups, features, features)
    add_products(gram, rows)
    return gram


def factor_in_place(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Factor symmetric matrices (groups, n, n) by Cholesky's method, in their own memory.

    Returns:
        The lower factors, in the memory of the matrices, and for each one 0 if it is positive definite (groups,).

    Examples:
        >>> matrices = torch.tensor([[[4.0, 2.0], [2.0, 5.0]]])
        >>> factor_in_place(matrices)[0].tolist()
        [[[2.0, 0.0], [1.0, 2.0]]]
    """
    by_columns = matrices.mT  # kernels work on columns, and copy what is stored by rows
    has_failed = torch.zeros(matrices.shape[:-2], dtype=torch.int32, device=matrices.device)
    torch.linalg.cholesky_ex(by_columns, out=(by_columns, has_failed))
    return by_columns, has_failed


def invert_factor_in_place(factor: Tensor) -> Tensor:
    """Return the inverse of a matrix from its lower factor (n, n), in the factor's memory."""
    return torch.cholesky_inverse(factor, out=factor)


def matrix_blocks(count: int) -> list[slice]:
    """Return the slices of at most 1,024 rows or columns of a matrix.

    Examples:
        >>> matrix_blocks(1500)
        [slice(0, 1024, None), slice(1024, 1500, None)]
    """
    return [slice(start, min(start + COLUMNS, count)) for start in range(0, count, COLUMNS)]
