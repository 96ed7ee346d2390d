"""The triangular factor of the rows, without their products: tall-skinny QR, one pass over row blocks.

``R`` with ``RᵀR = ZᵀZ`` for ``Z = [1, x - shift]`` keeps the digits that forming ``ZᵀZ`` loses: errors
grow with the condition number of Z, not with its square. The factor of two stacked factors is that of
the rows of both. (TSQR: J. Demmel, L. Grigori, M. Hoemmen, J. Langou, "Communication-optimal parallel
and sequential QR and LU factorizations", SIAM J. Sci. Comput. 34, 2012.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lazypipe.blocks import Block
from lazypipe.operations import Operations
from lazypipe.stats.base import Axis, require_finite

STACK = 2  # rows of a state, in widths, before they are reduced to one width


def triangular_factor(rows: np.ndarray) -> np.ndarray:
    """R (min(n, k), k) of the QR factorization of ``rows`` (n, k); in NumPy, which lets other threads run."""
    factor: np.ndarray = np.linalg.qr(rows, mode="r")  # type: ignore[assignment]
    return factor


@dataclass(frozen=True)
class TriangularFactor:
    """R (n_columns + 1, n_columns + 1), float64, of the rows of ``[1, x - shift]``.

    ``shift`` (n_columns,) is any vector near the mean: it keeps the column of ones from taking digits.
    The diagonal of R is not negative; its last rows are zero where the data have fewer rows than R.
    A state is any rows with the right R: fewer than 2 widths are left as they are, so that narrow
    blocks of wide data are reduced many at a time (one by one is 6 times the arithmetic, counted).
    """

    shift: np.ndarray
    axis: ClassVar[Axis] = "rows"
    State: ClassVar[type] = np.ndarray

    def measure(self, block: Block) -> np.ndarray:
        n_rows, n_columns = block.values.shape
        rows = np.empty((n_rows, n_columns + 1))
        rows[:, 0] = 1
        np.subtract(block.values, self.shift, out=rows[:, 1:], dtype=np.float64)
        require_finite(np.einsum("ij,ij->j", rows, rows), block)
        return self._reduced(rows)

    def merge(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        return self._reduced(np.concatenate([left, right]))

    def finish(self, total: np.ndarray) -> np.ndarray:
        width = total.shape[1]
        factor = np.zeros((width, width))
        found = triangular_factor(total)
        factor[: len(found)] = found
        factor *= np.where(factor.diagonal() < 0, -1.0, 1.0)[:, np.newaxis]
        return factor

    def _reduced(self, rows: np.ndarray) -> np.ndarray:
        return triangular_factor(rows) if len(rows) > STACK * rows.shape[1] else rows

    def state_nbytes(self, n_rows: int, n_columns: int) -> int:
        width = n_columns + 1
        return 8 * width * min(STACK * width, n_rows)

    def scratch_nbytes(self, n_rows: int, n_columns: int, itemsize: int) -> int:
        """The shifted rows or two stacked states, whichever are more, and LAPACK's two copies of them."""
        width = n_columns + 1
        return 3 * 8 * width * max(n_rows, 2 * STACK * width) + 2**20

    def operations(self, n_rows: int, n_columns: int, itemsize: int) -> Operations:
        return Operations(decomposition=3.0 * n_rows * (n_columns + 1) ** 2)  # 2, and as much again for stacked states
