"""The gallery: every picture is there and used, its commands and its Python are such as run, its script draws."""

import gzip
import importlib.util
import re
import shlex
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from jobs import JOBS
from lazypipe.models.sweep.cells import SCHEMA

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = (DOCS / "gallery.md").read_text(encoding="utf-8")
PICTURES = re.findall(r"!\[([^\]]*)\]\(([^)\s]+)\)", PAGE)
FILES = re.findall(r"`([\w-]+\.(?:gz|npy|npz))`", PAGE)
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
PYTHON = [text for kind, text in BLOCKS if kind == "python"]
COMMANDS = [
    shlex.split(line, comments=True)
    for kind, text in BLOCKS if kind == "sh" for line in text.replace("\\\n", " ").splitlines() if line.strip()
]  # fmt: skip
JOB_COMMANDS = [words[3:] for words in COMMANDS if words[:3] == ["python", "-m", "jobs"]]


@pytest.fixture(scope="module")
def gallery():
    spec = importlib.util.spec_from_file_location("docs_gallery", DOCS / "gallery.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for it
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The files of the page, small: a class is a bar of some height and brightness, a neuron sees bumps."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for name, n in (("mnist-train", 200), ("mnist-t10k", 100), ("notmnist-t10k", 200)):
        classes = np.arange(n) % 10
        images = rng.integers(0, 20, (n, 28, 28))
        images[np.arange(n), 2 * classes + 4] += 40 + 20 * classes[:, None]
        write_idx(folder / f"{name}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{name}-labels-idx1-ubyte.gz", classes)
    stimulus = rng.normal(size=20_000)
    drive = np.convolve(stimulus, np.hanning(20))[: len(stimulus)]
    np.save(folder / "fly_h1_stimulus.npy", stimulus)
    np.savez(folder / "fly_h1_spikes.npz", samples=np.flatnonzero(rng.random(len(drive)) < 0.05 * np.exp(0.3 * drive)))
    return folder


def test_every_picture_of_the_page_is_there_with_words_for_it():
    assert PICTURES
    for words, path in PICTURES:
        assert (DOCS / path).is_file(), path
        assert len(words.split()) >= 4, f"{path}: says nothing to who cannot see it"


def test_every_picture_of_the_gallery_is_on_the_page_and_small(gallery):
    shown = {Path(path).stem for _, path in PICTURES}
    assert shown == {name for of_group in gallery.PICTURES.values() for name in of_group}
    sizes = [(DOCS / path).stat().st_size for _, path in PICTURES]
    assert max(sizes) < 150_000 and sum(sizes) < 1_000_000


def test_every_picture_in_the_folder_is_on_some_page():
    pages = [*DOCS.rglob("*.md"), DOCS.parent / "README.md"]
    told = "".join(page.read_text(encoding="utf-8") for page in pages)
    assert [path.name for path in (DOCS / "figures").iterdir() if f"figures/{path.name}" not in told] == []


def test_every_file_that_the_script_reads_is_named_on_the_page(data):
    assert set(FILES) >= {path.name for path in data.iterdir()}


@pytest.mark.parametrize("words", JOB_COMMANDS, ids=" ".join)
def test_every_command_of_a_job_is_one_that_it_takes(words, monkeypatch):
    asked = []
    assert words[0] in JOBS
    job = import_module(f"jobs.{words[0]}")
    monkeypatch.setattr(job, "run", asked.append)
    monkeypatch.setattr(job, "show", lambda result: None)
    assert job.main(words[1:]) == 0
    assert len(asked) == 1


def test_commands_of_the_page_are_jobs_or_the_script_itself(gallery):
    assert JOB_COMMANDS
    others = [words for words in COMMANDS if words[:3] != ["python", "-m", "jobs"]]
    assert others and all(words[:2] == ["python", "docs/gallery.py"] for words in others)
    for words in others:
        gallery.parser().parse_args(words[2:])


def test_python_of_the_page_runs_on_the_results_that_it_names(tmp_path, monkeypatch):
    """In a folder with results of the jobs that the page runs before it."""
    monkeypatch.chdir(tmp_path)
    rows = np.random.default_rng(0).normal(size=(60, 28 * 28)) * np.exp(-np.arange(28 * 28) / 3)
    Path("data").mkdir()
    np.save("data/mnist.npy", rows.astype(np.float32))
    job = import_module("jobs.pca")
    asked = ["--source", "data/mnist.npy", "--n-components", "3", "--out", "results/pca", "--tracking.enabled", "false"]
    assert job.main(asked) == 0
    Path("results/labels").mkdir()
    names = ("model", "size", "C", "seed", "status", "train_accuracy", "validation_accuracy")
    assert set(names) <= set(SCHEMA.names)
    cells = [(model, size, 1, 0, "done", 1.0, 0.8) for model in ("dbn", "deep") for size in (100, 300)]
    Path("results/labels/cells.csv").write_text("\n".join(",".join(map(str, cell)) for cell in (names, *cells)))
    for text in PYTHON:
        exec(text, {})
    assert {path.name for path in tmp_path.glob("*.png")} == set(re.findall(r'savefig\("(.+?)"\)', "".join(PYTHON)))


@pytest.mark.filterwarnings("ignore::lazypipe.errors.ClosePairWarning")  # small data
@pytest.mark.parametrize("group", ["pca", "sta", "units", "sweep", "rbm", "labels"])
def test_the_script_draws_every_picture(gallery, data, tmp_path, capsys, group):
    if group in ("rbm", "labels"):
        pytest.importorskip("torch")
    assert gallery.main(["--data", str(data), "--out", str(tmp_path), "--only", group, "--quick"]) == 0
    drawn = {path.stem: path.stat().st_size for path in tmp_path.glob("*.png")}
    assert set(drawn) == set(gallery.PICTURES[group])
    assert min(drawn.values()) > 5_000
    assert f"{group}: " in capsys.readouterr().out


def test_a_folder_without_the_files_is_refused_in_one_line(gallery, tmp_path, capsys):
    assert gallery.main(["--data", str(tmp_path), "--only", "sta", "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert told.startswith("DataError: ") and told.count("\n") == 1 and "fly_h1_stimulus.npy" in told
