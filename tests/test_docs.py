"""The pages: links lead to what is there, commands are taken by what they call, names of the library exist."""

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
# Programs that pages name besides our own.
OTHERS = {"cmp", "cp", "dask", "docker", "eval", "export", "mkdir", "prefect", "spark-class", "spark-submit"}


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language, without their indent."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def headings(page: Path) -> set[str]:
    """What a link to a section of the page may name after ``#``, as GitHub makes it of the headings."""
    titles = re.findall(r"^#+ (.*)", without_blocks(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


def without_blocks(page: Path) -> str:
    """The text of a page, less its fenced blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """The words of each command, without the variables that are set before it."""
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
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", without_blocks(page)) if "://" not in link]
    lost = []
    for link in links:
        target, _, section = link.partition("#")
        file = page.parent / target if target else page
        if not file.exists() or (section and section not in headings(file)):
            lost.append(link)
    assert lost == []


def test_every_page_is_reached_from_the_front_page() -> None:
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop().resolve()
        if page not in reached:
            reached.add(page)
            links = re.findall(r"\]\(([^)\s#]+\.md)", without_blocks(page))
            ahead += [page.parent / link for link in links if "://" not in link]
    assert set(PAGES) <= reached


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_are_taken_by_what_they_call(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
            assert program in OTHERS or (ROOT / program).exists(), words


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_names_of_the_library_exist(page: Path) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "lp":
                assert hasattr(lp, node.attr), f"lp.{node.attr}"


def test_the_front_page_is_one_page() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160
