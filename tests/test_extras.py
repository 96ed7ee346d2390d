"""What is missing without the extras: one line each, and a library that does all the rest."""

import shutil
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
BLOCK = """
import importlib.abc, importlib.machinery, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name.split(".")[0] in {names!r} else find(name, *rest)
sys.meta_path.insert(0, Missing())
"""


def python(folder: Path, without: tuple[str, ...], code: str, path: Path = ROOT) -> str:
    """What a process prints that cannot import ``without``."""
    script = BLOCK.format(names=set(without)) + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(path), "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("without", "call", "line"),
    [
        ("pyspark", "lp.open_engine('spark')",
         "the engine spark needs pyspark, not installed here. Run pip install 'lazypipe[spark]'."),
        ("pyspark",
         "from jobs import convert; convert.run(convert.ConvertConfig(source='a.csv', target='a.npy', format='csv'))",
         "tables need pyspark, not installed here. Run pip install 'lazypipe[spark]'."),
        ("h5py", "lp.open_recording('a.h5')",
         ".h5 files need h5py, not installed here. Run pip install 'lazypipe[neuro]'."),
        ("h5py", "lp.read_spikes('a.nwb')",
         ".nwb files need h5py, not installed here. Run pip install 'lazypipe[neuro]'."),
        ("torch", "lp.MLP((3,))",
         "networks need torch, not installed here. Run pip install 'lazypipe[nets]'."),
    ],
)  # fmt: skip
def test_what_an_extra_would_install_is_named(tmp_path: Path, without: str, call: str, line: str) -> None:
    for name in ("a.h5", "a.nwb"):
        (tmp_path / name).write_bytes(b"\x89HDF\r\n\x1a\n")
    code = f"""
    import lazypipe as lp
    try:
        {call}
    except lp.ConfigError as error:
        print(error)
    """
    assert python(tmp_path, (without,), code) == line + "\n"


def test_a_matrix_is_converted_without_spark(tmp_path: Path) -> None:
    code = """
    import numpy as np
    from jobs import convert
    np.save("a.npy", np.ones((3, 2), np.float32))
    convert.show(convert.run(convert.ConvertConfig(source="a.npy", target="b.npy")))
    """
    assert python(tmp_path, ("pyspark",), code) == f"wrote     {tmp_path}/b.npy: 3 x 2 float32\n"


def test_a_wheel_holds_a_library_that_works_alone(tmp_path: Path) -> None:
    """Without jobs, flows, servers, Spark and the other extras."""
    sources = tmp_path / "sources"  # a build leaves files beside them
    for name in ("lazypipe", "jobs", "flows"):
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", tmp_path, sources], check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        names = packed.namelist()
        packed.extractall(tmp_path / "library", [name for name in names if name.startswith("lazypipe/")])
    assert {name.split("/")[0] for name in names} == {"lazypipe", "jobs", "flows", "lazypipe-0.1.0.dist-info"}
    assert "lazypipe/py.typed" in names
    assert "lazypipe-0.1.0.dist-info/licenses/LICENSE" in names
    rows = np.random.default_rng(0).normal(size=(50, 4))
    np.save(tmp_path / "rows.npy", rows)
    code = """
    import lazypipe as lp
    with lp.open_engine("serial") as engine:
        found = lp.covariance("rows.npy", ddof=1, engine=engine)
    print(lp.__file__)
    print(*found.covariance.ravel().tolist())
    """
    without = ("jobs", "flows", "prefect", "mlflow", "pyspark", "torch", "h5py", "s3fs", "boto3")
    file, values = python(tmp_path, without, code, tmp_path / "library").splitlines()
    assert Path(file) == tmp_path / "library" / "lazypipe" / "__init__.py"
    np.testing.assert_allclose(np.array(values.split(), float).reshape(4, 4), np.cov(rows.T), rtol=1e-12)
