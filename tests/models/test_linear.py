"""Linear regression against NumPy's lstsq, SciPy's linregress and closed forms, and what it refuses."""

import warnings

import numpy as np
import pytest
from scipy import stats

import lazypipe as lp
from lazypipe.io.beside import Beside, open_column
from lazypipe.io.matrix import Dense
from lazypipe.sizes import MIB

# Of float32 the residual keeps what rounding of y² leaves: here its 250-fold.
DTYPES = pytest.mark.parametrize(("dtype", "rtol"), [("float64", 1e-11), ("float32", 2e-4)])


def made(n_rows=3_000, n_columns=7, dtype="float64", offset=3.0, noise=1.0, seed=0):
    """X, correlated and of unlike scales, and y; both in ``dtype``."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_rows, n_columns)) @ (np.eye(n_columns) + 0.2 * rng.normal(size=(n_columns, n_columns)))
    x = ((x + offset) * np.geomspace(0.1, 10, n_columns)).astype(dtype)
    y = x.astype(float) @ rng.normal(size=n_columns) + noise * rng.normal(size=n_rows) + 2
    return x, y.astype(dtype)


def by_numpy(x, y, ridge=0.0, intercept=True):
    """Everything a fit tells, by a dozen lines of float64 NumPy."""
    x, y = x.astype(float), y.astype(float)
    mean, y_mean = (x.mean(axis=0), y.mean()) if intercept else (np.zeros(x.shape[1]), 0.0)
    z = x - mean
    penalised = np.vstack([z, np.sqrt(ridge) * np.eye(x.shape[1])])
    coef = np.linalg.lstsq(penalised, np.append(y - y_mean, np.zeros(x.shape[1])), rcond=None)[0]
    inverse = np.linalg.inv(penalised.T @ penalised)
    spread = inverse @ (z.T @ z) @ inverse
    residual = ((y - y_mean - z @ coef) ** 2).sum()
    ddof = np.trace(inverse @ (z.T @ z)) + intercept
    variance = residual / (len(y) - ddof)
    return {
        "coef_": coef,
        "intercept_": y_mean - mean @ coef,
        "standard_errors_": np.sqrt(variance * spread.diagonal()),
        "intercept_standard_error_": np.sqrt(variance * (1 / len(y) + mean @ spread @ mean)) if intercept else np.nan,
        "residual_variance_": variance,
        "r2_": 1 - residual / ((y - y.mean()) ** 2).sum(),
        "condition_number_": np.linalg.cond(z / np.where(z.any(axis=0), np.linalg.norm(z, axis=0), 1)),
    }


def assert_same(model, want, x, y, rtol, names=None):
    """Coefficients to ``rtol`` of what a deviation of y over one of the column would be; the rest of themselves."""
    x, y = x.astype(float), y.astype(float)
    units = {"coef_": y.std() / np.maximum(x.std(axis=0), 1e-300), "intercept_": y.std() + abs(y.mean())}
    for name in names or want:
        unit = units.get(name, np.abs(want[name]))
        np.testing.assert_array_less(np.abs(getattr(model, name) - want[name]), rtol * unit + 1e-300, err_msg=name)


@DTYPES
@pytest.mark.parametrize("method", ["normal", "tsqr"])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("ridge", [0.0, 300.0])
def test_equals_numpy(dtype, rtol, method, intercept, ridge, serial_engine):
    x, y = made(dtype=dtype)
    model = lp.LinearRegression(ridge, fit_intercept=intercept, method=method).fit(x, y, engine=serial_engine)
    assert_same(model, by_numpy(x, y, ridge, intercept), x, y, rtol if method == "normal" else 1e-11)
    np.testing.assert_allclose(model.t_values_, model.coef_ / model.standard_errors_)
    freedom = len(y) - model.ddof_
    np.testing.assert_allclose(model.p_values_, 2 * stats.t.sf(np.abs(model.t_values_), freedom), rtol=1e-9)
    assert (model.method_ == "tsqr") == (method == "tsqr")
    assert model.n_passes_ == 1 or not intercept  # y² is mostly its mean's, and 1 - R² a small difference
    assert model.n_rows_ == 3_000


@DTYPES
def test_one_feature_equals_linregress(dtype, rtol, serial_engine):
    x, y = made(200, 1, dtype)
    model = lp.LinearRegression().fit(x, y, engine=serial_engine)
    want = stats.linregress(x[:, 0].astype(float), y.astype(float))
    got = (model.coef_[0], model.intercept_, model.standard_errors_[0], model.intercept_standard_error_, model.r2_)
    told = (want.slope, want.intercept, want.stderr, want.intercept_stderr, want.rvalue**2)
    np.testing.assert_allclose(got, told, rtol=rtol)
    np.testing.assert_allclose(np.log(model.p_values_[0]), np.log(want.pvalue), rtol=rtol)


@DTYPES
def test_means_of_ten_thousand_deviations_cost_few_digits(dtype, rtol, serial_engine):
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(20_000, 5)) + 1e4).astype(dtype)
    y = ((x.astype(float) - 1e4) @ np.arange(1.0, 6) + rng.normal(size=20_000) + 1e4).astype(dtype)
    model = lp.LinearRegression().fit(x, y, engine=serial_engine)
    assert_same(model, by_numpy(x, y), x, y, rtol, ["coef_", "standard_errors_", "r2_"])
    assert model.n_passes_ == 1


@pytest.mark.parametrize("dtype", ["int16", "uint8", "bool", "float16"])
def test_any_dtype_of_the_features(dtype, serial_engine):
    rng = np.random.default_rng(2)
    x = rng.integers(0, 2 if dtype == "bool" else 100, (500, 4)).astype(dtype)
    y = x.astype(float) @ [1, 2, 3, 4] + rng.normal(size=500)
    model = lp.LinearRegression().fit(x, y, engine=serial_engine)  # y is float64, and so are the products
    assert_same(model, by_numpy(x, y), x, y, 1e-10)


def test_the_target_as_array_file_or_column_is_the_same(tmp_path, serial_engine):
    x, y = made(400, 3)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    np.save(tmp_path / "column.npy", y[:, np.newaxis])
    np.save(tmp_path / "all.npy", np.insert(x, 1, y, axis=1))
    want = by_numpy(x, y)
    for source, target in (
        ("x.npy", y),
        ("x.npy", y.tolist()),
        ("x.npy", tmp_path / "y.npy"),
        ("x.npy", lp.open_matrix(tmp_path / "column.npy")),
        ("all.npy", 1),
        ("all.npy", -3),
    ):
        model = lp.LinearRegression().fit(tmp_path / source, target, engine=serial_engine)
        assert_same(model, want, x, y, 1e-11)
    np.testing.assert_array_equal(model.columns_, [0, 2, 3])


def test_r2_of_training_and_other_rows(serial_engine):
    x, y = made(600, 4, noise=4)
    model = lp.LinearRegression().fit(x[:300], y[:300], engine=serial_engine, validation=(x[300:], y[300:]))
    predicted = model.predict(x[300:])
    np.testing.assert_allclose(predicted, x[300:] @ model.coef_ + model.intercept_)
    want = 1 - ((y[300:] - predicted) ** 2).sum() / ((y[300:] - y[300:].mean()) ** 2).sum()
    np.testing.assert_allclose(model.r2_validation_, want, rtol=1e-12)
    assert model.score(x[300:], y[300:], engine=serial_engine) == model.r2_validation_
    np.testing.assert_allclose(model.score(x[:300], y[:300], engine=serial_engine), model.r2_, rtol=1e-12)
    np.testing.assert_allclose(model.r2_adjusted_, 1 - (1 - model.r2_) * 299 / 295, rtol=1e-12)


def test_predictions_of_a_file_are_those_of_its_rows(tmp_path, serial_engine, monkeypatch):
    x, y = made(500, 4, "float32")
    np.save(tmp_path / "x.npy", x)
    model = lp.LinearRegression().fit(x, y, engine=serial_engine)
    monkeypatch.setattr("lazypipe.models.linear.PREDICT_NBYTES", 1000)
    np.testing.assert_allclose(model.predict(tmp_path / "x.npy"), x.astype(float) @ model.coef_ + model.intercept_)


def test_a_close_fit_keeps_the_digits_of_its_residuals(serial_engine):
    for dtype, noise, passes, method in (
        ("float64", 1e-5, 2, "normal equations"),
        ("float64", 1e-9, 2, "tsqr"),
        ("float32", 1e-1, 2, "normal equations"),
        ("float32", 1e-3, 2, "tsqr"),
    ):
        x, y = made(2_000, 4, dtype, noise=noise)
        model = lp.LinearRegression().fit(x, y, engine=serial_engine)
        assert (model.n_passes_, model.method_) == (passes, method), (dtype, noise)
        want = by_numpy(x, y)
        assert 1 - want["r2_"] < 1e-3
        np.testing.assert_allclose(model.standard_errors_, want["standard_errors_"], rtol=1e-4)
        np.testing.assert_allclose(1 - model.r2_, 1 - want["r2_"], rtol=1e-3, atol=2e-16)
        assert (np.abs(model.coef_ - want["coef_"]) < 0.02 * want["standard_errors_"]).all()


def test_an_exact_fit(serial_engine):
    x = np.arange(12.0).reshape(6, 2) ** 2
    model = lp.LinearRegression().fit(x, x @ [2.0, -1.0] + 5, engine=serial_engine)
    np.testing.assert_allclose([*model.coef_, model.intercept_], [2, -1, 5], rtol=1e-9)
    assert model.r2_ == pytest.approx(1, abs=1e-15)


def test_as_many_parameters_as_rows_leave_no_spread(serial_engine):
    rng = np.random.default_rng(0)
    model = lp.LinearRegression().fit(rng.normal(size=(4, 3)), rng.normal(size=4), engine=serial_engine)
    assert (
        np.isnan(model.residual_variance_) and np.isnan(model.standard_errors_).all() and np.isnan(model.r2_adjusted_)
    )
    assert model.r2_ == pytest.approx(1, abs=1e-12)


def test_a_constant_target_has_no_r2(serial_engine):
    x, _ = made(100, 3)
    model = lp.LinearRegression().fit(x, np.full(100, 0.1), engine=serial_engine)
    assert np.isnan(model.r2_)
    np.testing.assert_allclose([*model.coef_, model.intercept_], [0, 0, 0, 0.1], atol=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_powers_of_x_are_fitted_by_tsqr(dtype, serial_engine):
    degree = 9 if dtype == "float64" else 4
    rng = np.random.default_rng(3)
    x = np.linspace(0, 1, 5_000)[:, np.newaxis] ** np.arange(1, degree + 1)
    x = x.astype(dtype)
    y = x.astype(float) @ np.linspace(1, 2, degree) + 1e-3 * rng.normal(size=5_000)
    y = y.astype(dtype)
    model = lp.LinearRegression().fit(x, y, engine=serial_engine)
    assert model.method_ == "tsqr"
    assert model.n_passes_ == 2
    assert "rounding" in model.reason_
    want = by_numpy(x, y)
    np.testing.assert_allclose(model.coef_, want["coef_"], rtol=1e-7)
    z = x.astype(float) - x.mean(axis=0, dtype=float)
    upper = np.linalg.qr(z, mode="r")  # the inverse of zᵀz in want has lost its digits
    spread = np.linalg.norm(np.linalg.inv(upper), axis=1) * np.sqrt(want["residual_variance_"])
    np.testing.assert_allclose(model.standard_errors_, spread, rtol=1e-5)
    np.testing.assert_allclose(model.condition_number_, want["condition_number_"], rtol=1e-4)


def collinear(dtype="float64"):
    x, y = made(300, 6, dtype)
    x[:, 3] = x[:, 0] - 2 * x[:, 1]
    x[:, 5] = 3 * x[:, 2]
    return x, y


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("method", ["auto", "tsqr"])
def test_collinear_columns_are_named(dtype, intercept, method, serial_engine):
    x, y = collinear(dtype)
    with pytest.raises(lp.DataError, match=r"Drop them, or pass a ridge above 0\.") as caught:
        lp.LinearRegression(method=method, fit_intercept=intercept).fit(x, y, engine=serial_engine)
    message = str(caught.value)
    assert "column 3 of columns 0, 1" in message and "column 5 of column 2" in message
    assert "\n" not in message


def test_columns_are_named_as_they_stand_in_the_source(serial_engine):
    x, y = collinear()
    with pytest.raises(lp.DataError, match="column 4 of columns 0, 2; column 6 of column 3"):
        lp.LinearRegression().fit(np.insert(x, 1, y, axis=1), 1, engine=serial_engine)


def test_dummies_and_an_intercept_are_collinear_but_not_without(serial_engine):
    dummies = np.eye(3, dtype=np.uint8)[np.arange(300) % 3]
    y = dummies @ [1.0, 2.0, 4.0]
    with pytest.raises(lp.DataError, match="column 2 of columns 0, 1"):
        lp.LinearRegression().fit(dummies, y, engine=serial_engine)
    model = lp.LinearRegression(fit_intercept=False).fit(dummies, y, engine=serial_engine)
    np.testing.assert_allclose(model.coef_, [1, 2, 4], rtol=1e-12)
    assert model.intercept_ == 0


@pytest.mark.parametrize("dtype", ["float64", "float32", "int16"])
@pytest.mark.parametrize("method", ["auto", "tsqr", "normal"])
def test_constant_columns_are_named(dtype, method, serial_engine):
    x, y = made(300, 4)
    x = (10 * x).astype(dtype)
    x[:, 2] = 7 if dtype == "int16" else 7.1
    with pytest.raises(
        lp.DataError, match="column 2 is constant, as the intercept is. Drop it, or pass a ridge above 0"
    ):
        lp.LinearRegression(method=method).fit(x, y.astype(x.dtype), engine=serial_engine)
    model = lp.LinearRegression(fit_intercept=False).fit(x, y, engine=serial_engine)
    assert_same(model, by_numpy(x, y, intercept=False), x, y, 1e-8, ["coef_"])


def test_a_ridge_takes_collinear_and_constant_columns(serial_engine):
    x, y = collinear()
    x[:, 4] = 2
    for method in ("normal", "tsqr"):
        model = lp.LinearRegression(5.0, method=method).fit(x, y, engine=serial_engine)
        assert_same(model, by_numpy(x, y, 5.0), x, y, 1e-8, ["coef_", "standard_errors_", "r2_"])
        assert model.coef_[4] == pytest.approx(0, abs=1e-12)
        assert model.condition_number_ > 1e6


def test_a_ridge_takes_more_columns_than_rows(serial_engine):
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(30, 80)), rng.normal(size=30)
    for method in ("normal", "tsqr"):
        model = lp.LinearRegression(2.0, method=method).fit(x, y, engine=serial_engine)
        assert_same(model, by_numpy(x, y, 2.0), x, y, 1e-9, ["coef_", "intercept_", "standard_errors_", "r2_"])


def test_forced_normal_equations_that_keep_no_digit_are_refused(serial_engine):
    x, y = collinear("float32")
    with pytest.raises(lp.DataError, match="keep no digit of the coefficients. Use method='tsqr'"):
        lp.LinearRegression(method="normal").fit(x, y, engine=serial_engine)
    for method in ("normal", "tsqr"):
        with pytest.raises(lp.DataError, match="keep no digit of the coefficients. Raise the ridge"):
            lp.LinearRegression(1e-30, method=method).fit(*collinear(), engine=serial_engine)


@pytest.fixture(scope="module")
def long_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("linear")
    x, y = made(60_000, 40, "float32")
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    return folder, x, y


@pytest.mark.parametrize("method", ["normal", "tsqr"])
@pytest.mark.parametrize("memory", [16 * MIB, 512 * MIB], ids=["16MiB", "512MiB"])
def test_engines_agree_bit_for_bit(method, memory, long_file, serial_engine, cluster_engine, monkeypatch):
    folder, x, y = long_file
    models = []
    for engine in (serial_engine, cluster_engine):
        host = engine.host
        monkeypatch.setattr(engine, "host", type(host)(memory, host.threads, host.shared, host.base))
        model = lp.LinearRegression(method=method)
        models.append(
            model.fit(folder / "x.npy", folder / "y.npy", engine=engine, validation=(folder / "x.npy", x[:, 0]))
        )
    one, other = models
    assert len(one.plan_.folds[0].runs) > 4
    for name in ("coef_", "standard_errors_", "r2_", "r2_adjusted_", "intercept_", "r2_validation_"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert_same(one, by_numpy(x, y), x, y, 3e-5, ["coef_", "standard_errors_", "r2_"])


class Unread(Dense):
    """A matrix of a given shape that fails the test if anything reads it."""

    reads_columns, dtype, uri = True, np.dtype("float32"), "<unread>"

    def __init__(self, *shape):
        self.shape = shape

    def open(self, mapped=False):
        raise AssertionError("must not be read")

    def reader_nbytes(self, n_rows, n_columns):
        return 0


@pytest.mark.parametrize(
    ("options", "shape", "y", "error", "words"),
    [
        ({"ridge": -1}, (9, 3), 0, lp.ConfigError, "ridge: -1 is no penalty"),
        ({"ridge": np.nan}, (9, 3), 0, lp.ConfigError, "ridge: nan"),
        ({"method": "qr"}, (9, 3), 0, lp.ConfigError, "method: 'qr' is not one of auto, normal, tsqr"),
        ({"ddof": -1}, (9, 3), 0, lp.ConfigError, "ddof: -1"),
        ({"ddof": 9}, (9, 3), 0, lp.PlanError, "ddof=9 with 9 rows"),
        ({}, (5, 6), 0, lp.PlanError, "6 parameters cannot be told from 5 rows"),
        ({}, (9, 3), 3, lp.ConfigError, "no column 3. Give 0 to 2"),
        ({}, (9, 1), 0, lp.DataError, "only column is the target"),
        ({}, (9, 3), np.zeros(8), lp.DataError, "has 8 rows, <unread> has 9"),
        ({}, (9, 3), np.zeros((9, 2)), lp.DataError, "has 2 columns, y must have one"),
        ({}, (9, 3), "no.npy", lp.DataError, "no.npy: no such file"),
        ({}, (9, 3), np.array(["a"] * 9), lp.DataError, "text"),
        ({}, (9_000_000, 30_000), 0, lp.MemoryPlanError, "It fits in memory=.*fewer columns"),
    ],
)
def test_what_is_refused_unread(options, shape, y, error, words, serial_engine):
    with pytest.raises(error, match=words) as caught:
        lp.LinearRegression(**options).fit(Unread(*shape), y, engine=serial_engine)
    assert "\n" not in str(caught.value)


def test_other_widths_and_missing_values_are_refused(serial_engine):
    x, y = made(100, 4)
    model = lp.LinearRegression().fit(x, y, engine=serial_engine)
    with pytest.raises(lp.DataError, match="3 feature columns for validation, but <array> has 4"):
        lp.LinearRegression().fit(x, y, engine=serial_engine, validation=(x[:, :3], y))
    for call in (lambda: model.predict(x[:, :3]), lambda: model.score(x[:, :3], y, engine=serial_engine)):
        with pytest.raises(lp.DataError, match="3 feature columns, but the model has 4"):
            call()
    y[7] = np.nan
    with pytest.raises(lp.DataError, match=r"\(columns 0 to 3\) beside <array> \(column 4\): NaN at row 7, column 4"):
        lp.LinearRegression().fit(x, y, engine=serial_engine)


def test_the_plan_tells_every_pass(serial_engine):
    plan = lp.plan_linear_regression(
        Unread(1_000, 50), 3, lp.LinearRegression(), serial_engine, validation=(Unread(9, 50), 3)
    )
    assert [fold.title for fold in plan.folds] == ["normal equations", "tsqr", "residuals", "validation"]
    assert plan.passes == 1
    assert "validation rows, <unread>" in str(plan)


def test_parameters_as_scikit_learn_asks_for_them():
    model = lp.LinearRegression(2.0, method="tsqr")
    assert lp.LinearRegression(**model.get_params()).get_params() == model.get_params()
    assert repr(model.set_params(ridge=1)) == "LinearRegression(ridge=1, fit_intercept=True, ddof=None, method='tsqr')"
    with pytest.raises(lp.ConfigError, match="no parameter 'alpha'"):
        model.set_params(alpha=1)


def test_no_warning_escapes(serial_engine):
    x, y = made(50, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lp.LinearRegression().fit(x, np.zeros(50), engine=serial_engine)
        lp.LinearRegression(1.0).fit(np.column_stack([x, np.ones(50)]), y, engine=serial_engine)


def test_beside_is_one_matrix(tmp_path):
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(20, 3)).astype(np.float32), rng.integers(0, 9, (20, 2)).astype(np.int16)
    np.save(tmp_path / "left.npy", left)
    both = Beside(lp.open_matrix(tmp_path / "left.npy"), lp.open_matrix(right))
    assert both.shape == (20, 5) and both.dtype == np.float32 and both.nbytes == left.nbytes + right.nbytes
    want = np.column_stack([left, right])
    from lazypipe.blocks import Span

    with both.open() as reader:
        for a, b in ((0, 5), (0, 3), (3, 5), (2, 4), (4, 5), (1, 2)):
            out = np.full((7, b - a), -1.0)
            reader.read(Span(5, 12), Span(a, b), out)
            np.testing.assert_array_equal(out, want[5:12, a:b])
    assert both.fingerprint() != Beside(lp.open_matrix(right), lp.open_matrix(tmp_path / "left.npy")).fingerprint()
    assert [piece.path for piece in both.pieces()] == [str(tmp_path / "left.npy")]


def test_whole_numbers_as_a_target_are_exact():
    assert open_column(np.arange(5)).dtype == np.float64
    assert open_column(np.arange(5, dtype=np.uint8)).dtype == np.uint8


def test_a_sparse_source_cannot_be_read_beside_another():
    sparse = Unread(9, 3)
    sparse.sparse = True
    with pytest.raises(lp.DataError, match="<unread>: is sparse"):
        lp.LinearRegression().fit(sparse, np.zeros(9))
    with pytest.raises(lp.DataError, match="<unread>: is sparse"):
        lp.LinearRegression().fit(sparse, 1)
