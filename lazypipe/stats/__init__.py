"""Statistics: frozen objects that measure a block, merge two states, and finish the total.

Sending the object to a worker is the broadcast. A new statistic is one file here and one line in
``tests/laws.py``, which puts it through the laws that hold for all of them.
"""

from lazypipe.stats.base import Statistic
from lazypipe.stats.centring import Centring
from lazypipe.stats.covariance import Covariance
from lazypipe.stats.gram import Gram
from lazypipe.stats.moments import Moments
from lazypipe.stats.products import AdjointProduct, ColumnProduct, RowProduct, StripeProjection
from lazypipe.stats.residuals import ResidualSquares
from lazypipe.stats.tsqr import TriangularFactor

__all__ = [
    "AdjointProduct",
    "Centring",
    "ColumnProduct",
    "Covariance",
    "Gram",
    "Moments",
    "ResidualSquares",
    "RowProduct",
    "Statistic",
    "StripeProjection",
    "TriangularFactor",
]
