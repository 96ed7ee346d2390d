"""The guides: their code is run as it is written, and held to NumPy and to what is built in."""

import re
import shlex
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import test_laws
from laws import Case

import lazypipe as lp
from jobs.covariance import main
from lazypipe import engines, io
from lazypipe.blocks import Span
from lazypipe.errors import DataError
from lazypipe.io.formats import Format
from lazypipe.plan import plan_fold

ROOT = Path(__file__).resolve().parents[1]
GUIDES = ROOT / "docs" / "guides"
PAGES = sorted(GUIDES.glob("*.md"))
MOST_LINES = 40  # of a format, a statistic, an engine
MOST_NBYTES = 150_000  # of a picture


def blocks(page: str, language: str = "python") -> list[str]:
    text = (GUIDES / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def name_of(block: str) -> str | None:
    """The file that a block is to be saved as."""
    found = re.match(r"# (\w+\.py)\n", block)
    return found[1] if found else None


def run(code: str, names: dict) -> None:
    exec(compile(code, "guide", "exec"), names)


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """What extending.md leaves, once its blocks were run in order in a folder of their own."""
    folder = tmp_path_factory.mktemp("extending")
    names: dict = {"__name__": "__main__"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        for block in blocks("extending.md"):
            if (file := name_of(block)) is not None:
                Path(file).write_text(block)
            elif not block.startswith("Case("):
                run(block, names)
        yield names
        for name in ("plink", "genotype_counts", "pool_engine"):
            del sys.modules[name]


@pytest.fixture(scope="module")
def individuals(extended):
    """The genotypes (individuals, variants) that the guide packed."""
    return np.ascontiguousarray(extended["copies"].T)


def test_each_example_is_under_forty_lines():
    lines = {
        file: sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in block.splitlines())
        for block in blocks("extending.md")
        if (file := name_of(block)) is not None
    }
    assert set(lines) == {"plink.py", "genotype_counts.py", "pool_engine.py"}
    assert max(lines.values()) < MOST_LINES, lines


@pytest.mark.parametrize("rows", [Span(0, 200), Span(0, 1), Span(3, 9), Span(198, 200)])
@pytest.mark.parametrize("columns", [Span(0, 20_000), Span(7, 8), Span(19_000, 20_000)])
def test_the_format_reads_any_rectangle(extended, individuals, rows, columns):
    out = np.empty((len(rows), len(columns)))
    with extended["matrix"].open() as reader:
        reader.read(rows, columns, out)
    np.testing.assert_array_equal(out, individuals[rows.slice, columns.slice])


@pytest.mark.parametrize("n_rows", [5, 6, 7, 8])
def test_the_format_reads_individuals_that_fill_no_byte(extended, tmp_path, n_rows):
    codes = np.random.default_rng(n_rows).integers(0, 4, (11, n_rows))
    padded = np.zeros((11, -(-n_rows // 4) * 4), int)
    padded[:, :n_rows] = codes
    packed = (padded.reshape(11, -1, 4) << [0, 2, 4, 6]).sum(axis=2).astype(np.uint8)
    (tmp_path / "x.bed").write_bytes(bytes([108, 27, 1]) + packed.tobytes())
    (tmp_path / "x.fam").write_text("one\n" * n_rows)
    (tmp_path / "x.bim").write_text("one\n" * 11)
    out = np.empty((n_rows - 1, 11), np.float32)
    extended["open_source"](tmp_path / "x.bed").read(Span(1, n_rows), Span(0, 11), out)
    np.testing.assert_array_equal(out, np.array([2, np.nan, 1, 0], np.float32)[codes.T[1:]])


def test_the_format_gives_the_bits_of_an_array(extended, individuals):
    options = {"scale": "genotype", "nan": "mean"}
    with lp.open_engine("serial", memory="64MiB") as engine:
        mine, theirs = (lp.PCA(1, **options).fit(x, engine=engine) for x in (extended["matrix"], individuals))
    np.testing.assert_array_equal(mine.components_, theirs.components_)
    np.testing.assert_array_equal(mine.explained_variance_, theirs.explained_variance_)
    scores = extended["scores"]
    assert {(scores[:100] > 0).mean(), (scores[100:] > 0).mean()} == {0.0, 1.0}, "the guide says so"


def test_the_format_refuses_a_file_that_is_none(extended, tmp_path):
    for end in (".fam", ".bim"):
        (tmp_path / f"x{end}").write_text("one\n" * 8)
    (tmp_path / "x.bed").write_bytes(bytes([108, 27, 1, 0]))
    with pytest.raises(DataError, match=r"is no \.bed of 8 individuals and 8 variants"):
        extended["open_source"](tmp_path / "x.bed")


def test_a_line_makes_the_format_known_by_its_name(extended, monkeypatch):
    [line] = re.findall(r"`(Format\(.*?\))`", (GUIDES / "extending.md").read_text())
    monkeypatch.setitem(sys.modules, "lazypipe.io.plink", sys.modules["plink"])
    monkeypatch.setattr(io, "FORMATS", (*io.FORMATS, eval(line, {"Format": Format})))
    assert lp.open_matrix("toy.bed").shape == (200, 20_000)


def test_the_statistic_counts_as_numpy_does(extended, individuals):
    want = np.stack([*((individuals == n).sum(axis=1) for n in (0, 1, 2)), np.isnan(individuals).sum(axis=1)], axis=1)
    np.testing.assert_array_equal(extended["counts"], want)
    np.testing.assert_array_equal(extended["same"], want)
    assert extended["n_new"] == 20_000
    names = {**extended}
    run(next(block for block in blocks("extending.md") if "Checkpointed" in block), names)
    assert names["n_new"] == 0, "all of it is in the state"


@pytest.fixture(scope="module")
def case(extended):
    """The line of tests/laws.py that the guide gives."""
    [line] = [block for block in blocks("extending.md") if block.startswith("Case(")]
    return eval(line, {**extended, "Case": Case, "np": np})


def test_the_statistic_obeys_the_laws(case):
    test_laws.test_cutting_the_data_anywhere_never_changes_the_answer(case=case)
    for dtype in ("float32", "float64", "int8", "bool"):
        test_laws.test_kernels_equal_plain_numpy_in_every_dtype(case=case, dtype=dtype)
    test_laws.test_merging_leaves_what_it_merged_as_it_was(case=case)


def test_the_engine_gives_the_bits_of_serial(extended, individuals):
    assert (extended["pooled"].components_ == extended["pca"].components_).all()
    x = np.random.default_rng(1).normal(2, 1, (30_000, 40)).astype(np.float32)
    events: list = []
    pool = extended["PoolEngine"](memory=2**26, workers=2, progress=lp.progress.Progress((events.append,)))
    with pool, lp.open_engine("serial", memory=2**26) as serial:
        mine, theirs = (lp.covariance(x, engine=engine) for engine in (pool, serial))
        plan = plan_fold("pass", extended["GenotypeCounts"](), lp.open_matrix(individuals), pool.host)
        assert list(pool.map(abs, range(-20, 0), plan)) == list(range(20, 0, -1))
        assert list(pool.map(abs, [], plan)) == []
    np.testing.assert_array_equal(mine.covariance, theirs.covariance)
    done = [event for event in events if isinstance(event, lp.progress.TaskDone)]
    assert all(a.n_done < b.n_done or b.n_done == 1 for a, b in pairwise(done))


def test_a_line_makes_the_engine_known_by_its_name(extended, monkeypatch):
    [(name, place)] = re.findall(r'`"(\w+)": "(.*?)"`', (GUIDES / "extending.md").read_text())
    monkeypatch.setitem(sys.modules, place.split(":")[0], sys.modules["pool_engine"])
    monkeypatch.setitem(engines.ENGINES, name, place)
    with lp.open_engine(name, memory="64MiB", workers=1) as engine:
        assert engine.slots == 1 and engine.host.memory == 2**26


def test_the_lines_of_numpy_do_what_pca_does(capsys):
    names: dict = {}
    [code] = blocks("pca.md")
    run(code, names)
    x, k, pca = names["X"].astype(np.float64), names["k"], names["pca"]
    want = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)[:k] ** 2 / (len(x) - 1)
    np.testing.assert_allclose(names["values"][:k], want, rtol=1e-9)
    np.testing.assert_allclose(pca.explained_variance_, want, rtol=1e-6)
    np.testing.assert_allclose(np.abs((names["components"].T * pca.components_).sum(axis=1)), 1, atol=1e-6)
    assert pca.n_passes_ == names["n_passes"] + 1, "the one that writes the components out"
    assert capsys.readouterr().out.startswith("4 5\n"), "the guide shows so"


def test_three_nights_by_hand(tmp_path, monkeypatch, capsys, stored):
    """Those of nightly.md, on fewer rows: all, those that are new, nothing."""
    first, second = blocks("nightly.md")
    command, again = (shlex.split(block) for block in blocks("nightly.md", "sh")[:2])
    assert command == again and command[:4] == ["python", "-m", "jobs", "covariance"]
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    said = []
    for night in (first, second, ""):
        run(night.replace("00_000", "00"), names)
        assert main(command[4:]) == 0
        said.append(capsys.readouterr().out)
    assert "rows      200, " in said[0]
    assert "rows      300; 100 read, the others were in the state" in said[1]
    assert said[2].startswith("unchanged same data, config and code as results/by-hand (finished ")


@pytest.mark.service
def test_the_deployment_of_the_guide_has_no_fault(tmp_path, monkeypatch):
    from flows._project import checked

    [text] = blocks("nightly.md", "yaml")
    for name in ("flows", "jobs", "lazypipe"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "nightly.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    found = checked(tmp_path / "nightly.yaml")
    assert not found.faults
    assert [deployment.name for deployment in found.deployments] == ["readings"]


def slugs(page: Path) -> set[str]:
    """What links to the headings of a page end with."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_to_headings_find_them(page):
    for target, heading in re.findall(r"\]\(([^)\s#]*)#([^)\s]+)\)", page.read_text(encoding="utf-8")):
        assert heading in slugs((page.parent / target) if target else page), f"{target}#{heading}"


def test_every_guide_is_in_the_index_and_every_picture_on_a_page():
    index = (GUIDES / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES if page.name != "README.md" and f"({page.name})" not in index] == []
    shown = [
        (words, GUIDES / image)
        for page in PAGES
        for words, image in re.findall(r"!\[([^\]]*)\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    ]
    assert all(words for words, _ in shown), "a picture says what it shows, in words"
    pictures = sorted((GUIDES / "images").glob("*"))
    assert sorted({image for _, image in shown}) == pictures
    assert {picture.name: size for picture in pictures if (size := picture.stat().st_size) > MOST_NBYTES} == {}
