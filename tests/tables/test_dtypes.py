"""The narrowest dtype that holds every number exactly, and what others refuse or round."""

import numpy as np
import pyarrow as pa
import pytest

from lazypipe.errors import DataError
from lazypipe.tables.dtypes import checked, narrowest
from lazypipe.tables.features import Feature
from lazypipe.tables.fields import Field
from lazypipe.tables.found import Found

TYPES = {
    pa.bool_(): "truth",
    pa.int64(): "integer",
    pa.float32(): "float32",
    pa.float64(): "float64",
}


def field(values, kind=None, name="x"):
    values = pa.array(values, kind)
    found = Found(Feature(name, str(values.type), TYPES[values.type]), 10)
    found.add(values)
    return Field(found.feature, found)


@pytest.mark.parametrize(
    ("columns", "dtype"),
    [
        ([[True, False]], "bool"),
        ([[True], [-1]], "int8"),
        ([[0, 127]], "int8"),
        ([[0, 255]], "uint8"),
        ([[-1, 255]], "int16"),
        ([[1], [40_000]], "int32"),
        ([[2**31]], "float64"),
        ([[2**53], [-1]], "float64"),
        ([[0.5]], "float32"),
        ([[0.1]], "float64"),
        ([[0.5, np.nan, np.inf]], "float32"),
        ([[0.5], [2**24]], "float32"),
        ([[0.5], [2**24 + 1]], "float64"),
        ([[1e300]], "float64"),
    ],
)
def test_the_narrowest_dtype_that_is_exact(columns, dtype):
    assert narrowest([field(values) for values in columns], False, "t") == dtype


def test_nulls_that_become_nan_make_floats():
    assert narrowest([field([1, None])], True, "t") == "float32"
    assert narrowest([field([1, None])], False, "t") == "int8"
    assert narrowest([field([2**24 + 1, None])], True, "t") == "float64"


def test_nulls_that_become_0_are_in_the_range():
    assert narrowest([field([200, None])], False, "t") == "uint8"
    assert narrowest([field([None, None], pa.int64())], False, "t") == "int8"


def test_whole_numbers_that_nothing_holds_are_refused():
    with pytest.raises(DataError, match=r"t: column 'id' has -9,007,199,254,740,993, and no dtype holds every whole"):
        narrowest([field([1]), field([-(2**53) - 1], name="id")], False, "t")
    assert checked("float64", [field([2**53 + 1])], False, "t") == (np.float64, ("x",))


@pytest.mark.parametrize(
    ("values", "dtype", "rounded"),
    [
        ([0.1], "float32", True),
        ([0.5], "float32", False),
        ([2**24 + 1], "float32", True),
        ([7], "float16", False),
        ([4_097], "float16", True),
        ([0.1], "float64", False),
        ([1.0, 3.0], "int8", False),
        ([True], "uint8", False),
    ],
)
def test_a_dtype_asked_for_is_taken_and_what_it_rounds_is_told(values, dtype, rounded):
    assert checked(dtype, [field(values)], False, "t") == (np.dtype(dtype), ("x",) if rounded else ())


@pytest.mark.parametrize(
    ("values", "dtype", "said"),
    [
        ([300], "int8", "goes from 0 to 300, beyond int8"),
        ([2], "bool", "goes from 0 to 2, beyond bool"),
        ([-1], "uint8", "goes from -1 to 0, beyond uint8"),
        ([0.5], "int32", "has fractions: int32 holds none"),
        ([np.inf], "int32", "has infinite numbers: int32 holds none"),
        ([np.inf, 1e300], "float32", r"has 1e\+300, beyond"),
        ([1.0, np.nan], "int32", "has NaN: int32 holds none"),
        ([1e300], "float32", r"has 1e\+300, beyond the 3.40282e\+38 of float32"),
        ([1, None], "int8", "has nulls, which become NaN: int8 holds none"),
    ],
)
def test_a_dtype_that_cannot_hold_a_column_is_refused(values, dtype, said):
    with pytest.raises(DataError, match=f"t: column 'x' {said}"):
        checked(dtype, [field(values)], True, "t")
