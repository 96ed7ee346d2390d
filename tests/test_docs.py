"""The pages: links lead somewhere, commands are such that run, names of the library are there."""

import ast
import re
import shlex
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import lazypipe as lp
from jobs import JOBS
from jobs._cli import parse
from jobs._config import Config
from jobs._paper import Paper
from jobs.plan import PLANNED

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("docker/*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
# Programs that pages may name besides our own.
OTHERS = {".", "cat", "cd", "cmp", "cp", "curl", "dask", "docker", "docker/build", "echo", "eval", "export",
          "git", "hadolint", "head", "kill", "kubectl", "ls", "mkdir", "mlflow", "pip", "prefect", "rm",
          "source", "spark-class", "spark-submit", "sudo", "unzip", "venv-pack"}  # fmt: skip


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language, without their indent."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """The words of every command line, without variables set before it and what follows a pipe."""
    found = []
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Za-z_]+=.*", words[0]):
                words = words[1:]
            part: list[str] = []
            for word in [*words, "|"]:
                if word in ("|", "&&", ";", "&"):
                    found += [part] if part else []
                    part = []
                else:
                    part.append(word)
    return found


def configured(job: str, arguments: list[str]) -> Config:
    """What the command line of a job comes to; it raises what a user would see."""
    if job == "plan":
        planned = PLANNED[arguments[0]]
        model = planned.model if isinstance(planned, Paper) else planned[0]
        return parse(f"plan {arguments[0]}", model, arguments[1:])
    module = import_module(f"jobs.{job}")
    [model] = [
        one for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, Config) and one.__module__ == module.__name__
        and one.__name__.lower() == f"{job}config"
    ]  # fmt: skip
    return parse(job, model, arguments)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [target for target in targets if target and "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_are_such_that_run(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for words in commands(page):
        program, *rest = words
        if program == "make":
            assert [one for one in rest if "=" not in one and one not in targets and one != ".venv"] == [], words
        elif program == "python" and rest[:2] == ["-m", "jobs"]:
            if rest[2] not in ("--help",) and "--help" not in rest:
                assert rest[2] in JOBS, words
                configured(rest[2], rest[3:])
        elif program == "spark-submit" and any(one.startswith("jobs/") for one in rest):
            script = next(one for one in rest if one.startswith("jobs/"))
            configured(Path(script).stem, rest[rest.index(script) + 1 :])
        elif program == "python" and rest[0] == "-m":
            assert find_spec(rest[1]), words
        elif program == "python":
            assert (ROOT / rest[0]).exists(), words
        else:
            assert program in OTHERS or "/" in program, words


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_python_names_what_is_there(page: Path) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "lp":
                assert hasattr(lp, node.attr), f"lp.{node.attr}"


def test_the_front_page_is_one_page() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160
