"""A run of the same data, config and code as a result that is there computes nothing, and says so."""

import json
import os
import re
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pytest

import lazypipe as lp
from jobs import _key, covariance, pca, plan, sweep
from jobs._examples import ExamplesConfig
from lazypipe.stores import path_of

QUIET = ("--tracking.enabled", "false", "--engine.kind", "serial")


pytestmark = pytest.mark.usefixtures("place")


def config(**options):
    given = {"source": "rows.npy", "n_components": 2, "engine": {"kind": "serial"}, "tracking": {"enabled": False}}
    return pca.PCAConfig(**{**given, **options})


def touched(path, seconds=10):
    """The file, changed later."""
    status = os.stat(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + seconds * 10**9))


def test_an_unchanged_run_says_so_and_computes_nothing(place, capsys, monkeypatch):
    command = ["--source", "rows.npy", "--n-components", "2", "--engine.kind", "serial"]
    command += ["--tracking.uri", f"sqlite:///{place}/mlflow.db", "--reuse"]
    assert pca.main(command) == 0
    first = re.search(r"result +(\S+)", capsys.readouterr().out)[1]
    run_id = json.loads((place / first / "result.json").read_text())["mlflow"]["run_id"]

    monkeypatch.setattr("jobs._run.open_engine", None)
    assert pca.main(command) == 0
    said = capsys.readouterr()
    finished = json.loads((place / first / "result.json").read_text())["finished"]
    assert said.out.startswith(
        f"unchanged same data, config and code as {first} (finished {finished}): nothing to do\nmlflow    run {run_id}"
    )
    assert said.err == ""
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{place}/mlflow.db")
    assert len(client.search_runs([client.get_experiment_by_name("pca").experiment_id])) == 1
    assert len(list((place / "results").iterdir())) == 1


def test_to_plan_an_unchanged_run_opens_no_engine_and_loads_no_library(capsys, monkeypatch):
    first = pca.run(config(reuse=True))
    monkeypatch.setattr("jobs._run.open_engine", None)
    monkeypatch.setattr("jobs._opening._load_libraries", None)
    found = pca.plan(config(reuse=True))
    assert found.reused and found.out == first.out
    capsys.readouterr()
    options = ("--source", "rows.npy", "--n-components", "2", "--reuse", *QUIET)
    assert plan.main(["pca", *options]) == 0
    assert capsys.readouterr().out.startswith(f"unchanged same data, config and code as {first.out} (finished ")
    with pytest.raises(TypeError):
        pca.plan(config(reuse=True, n_components=3))


def test_the_result_that_is_given_is_the_one_that_is_there():
    first = pca.run(config(reuse=True))
    again = pca.run(config(reuse=True))
    assert again.reused and not first.reused
    assert again.out == first.out and again.figures == first.figures and again.model is None
    assert again.job == "pca" and again.run_id is None


def test_without_reuse_it_is_computed_again():
    first, second = pca.run(config()), pca.run(config())
    assert not second.reused and second.out != first.out
    assert pca.run(config(reuse=True)).out == second.out, "the newest"


@pytest.mark.parametrize("change", ["data", "config", "code"])
def test_what_changed_is_computed(change, monkeypatch):
    pca.run(config(reuse=True))
    if change == "data":
        touched("rows.npy")
    if change == "code":
        monkeypatch.setattr(_key, "code_hash", lambda: "other")
    found = pca.run(config(reuse=True, n_components=3 if change == "config" else 2))
    assert not found.reused


def test_where_it_runs_and_what_is_told_changes_nothing(place):
    first = pca.run(config(reuse=True))
    engine = {"kind": "serial", "workers": 1}
    tracking = {"enabled": True, "uri": f"sqlite:///{place}/mlflow.db"}
    assert pca.run(config(reuse=True, engine=engine, tracking=tracking, overwrite=True)).out == first.out


def test_a_result_in_out_is_used_where_it_is_the_same_and_else_guarded():
    pca.run(config(out="out"))
    assert pca.run(config(out="out", reuse=True)).reused
    assert pca.plan(config(out="out", reuse=True)).reused, "told, and not refused for the folder that is there"
    with pytest.raises(lp.DataError, match="out: exists"):
        pca.run(config(out="out", reuse=True, n_components=3))
    assert not pca.run(config(out="out", reuse=True, n_components=3, overwrite=True)).reused
    assert not pca.run(config(out="other", reuse=True)).reused, "only out is looked at where it is given"


def test_a_result_that_is_not_whole_is_not_used():
    first = pca.run(config(reuse=True))
    (first.out / "components.npy").unlink()
    second = pca.run(config(reuse=True))
    assert not second.reused
    record = json.loads((second.out / "result.json").read_text())
    (second.out / "result.json").write_text(json.dumps(record | {"complete": False}))
    third = pca.run(config(reuse=True))
    assert not third.reused
    (third.out / "result.json").write_text("{")
    assert not pca.run(config(reuse=True)).reused


def test_what_was_written_beside_the_result_must_be_there():
    first = pca.run(config(reuse=True, scores="scores.zarr"))
    assert pca.run(config(reuse=True, scores="scores.zarr")).out == first.out
    shutil.rmtree("scores.zarr")
    assert not pca.run(config(reuse=True, scores="scores.zarr")).reused
    with pytest.raises(lp.DataError, match=r"scores\.zarr: exists"):
        pca.run(config(scores="scores.zarr"))


@pytest.mark.parametrize("what", ["components.npy", "scree.png"])
def test_a_result_whose_files_were_altered_since_is_not_used(what):
    first = pca.run(config(reuse=True))
    assert pca.run(config(reuse=True)).reused
    touched(first.out / what)
    assert not pca.run(config(reuse=True)).reused


def test_scores_that_another_run_wrote_since_are_not_used():
    """Of the same size and the same names: components that were found from another seed."""
    first = pca.run(config(reuse=True, scores="scores.zarr"))
    assert set(first.figures["written"]) == {*first.figures["files"], "scores"}
    pca.run(config(scores="scores.zarr", overwrite=True, seed=1))
    assert not pca.run(config(reuse=True, scores="scores.zarr", overwrite=True)).reused
    assert pca.run(config(reuse=True, scores="scores.zarr")).reused
    chunk = next(path for path in sorted((Path("scores.zarr") / "c").rglob("*")) if path.is_file())
    touched(chunk)
    assert not pca.run(config(reuse=True, scores="scores.zarr", overwrite=True)).reused


def test_a_result_that_does_not_say_what_was_written_is_not_used():
    first = pca.run(config(reuse=True))
    record = json.loads((first.out / "result.json").read_text())
    del record["written"]
    (first.out / "result.json").write_text(json.dumps(record))
    assert not pca.run(config(reuse=True)).reused


def test_a_result_in_a_store_of_objects_is_used_as_long_as_it_is_as_it_was():
    out, scores = "memory://reuse/out", "memory://reuse/scores.zarr"
    given = config(reuse=True, out=out, scores=scores)
    assert not pca.run(given).reused
    assert pca.run(given).reused
    place = path_of(f"{out}/mean.npy")
    place.file_system.pipe_file(place.uri, b"something else")
    assert not pca.run(given.model_copy(update={"overwrite": True})).reused
    assert pca.run(given).reused
    place = path_of(f"{scores}/zarr.json")
    place.file_system.pipe_file(place.uri, place.read_bytes())  # the same, written again
    assert not pca.run(given.model_copy(update={"overwrite": True})).reused


def test_a_sweep_with_failed_cells_is_tried_again(monkeypatch):
    rng = np.random.default_rng(0)
    np.save("labels.npy", (np.load("rows.npy")[:, 0] + rng.normal(size=60) > 0).astype(int))
    options = {"sizes": (20, 40), "strengths": (1.0,), "engine": {"kind": "serial"}, "tracking": {"enabled": False}}
    given = sweep.SweepConfig(source="rows.npy", labels="labels.npy", hold_out=20, reuse=True, **options)
    first = sweep.run(given)
    assert sweep.run(given).reused
    record = json.loads((first.out / "result.json").read_text())
    assert record["complete"] and record["cells"]["failed"] == 0
    fewer = dict(sweep._answer.__globals__)["Counter"]
    monkeypatch.setattr(sweep, "Counter", lambda statuses: fewer({"done": 1, "failed": 1}))
    assert not sweep.run(given.model_copy(update={"sizes": (30, 40)})).figures["complete"]
    assert not sweep.run(given.model_copy(update={"sizes": (30, 40)})).reused


def test_reuse_and_restart_exclude_each_other():
    with pytest.raises(lp.ConfigError, match="restart"):
        pca.run(config(reuse=True, restart=True, state="state"))


def test_every_job_tells_an_unchanged_run(capsys):
    command = ["--source", "rows.npy", "--out", "out", "--reuse", *QUIET]
    for _ in range(2):
        assert covariance.main(command) == 0
    assert "unchanged same data, config and code as out (finished " in capsys.readouterr().out


class Some(ExamplesConfig):
    """Reads everything that a job can."""

    must_validate = False
    spikes: str | None = None
    exclude: str | None = None
    row_weights: str | None = None
    target: str | int | None = None
    validation_source: str | None = None
    validation_target: str | None = None
    unlabelled: str | None = None
    stack: str | None = None
    pretrained: str | None = None
    model: str | None = None


@pytest.mark.parametrize("name", [name for name in _key.INPUTS if name not in ("source", "validation_labels")])
def test_every_file_that_is_read_is_in_the_key(place, name):
    (place / "inside").mkdir()
    for path in (place / "one.bin", place / "one.meta", place / "inside" / "a.npy"):
        path.touch()
    data = lp.open_matrix("rows.npy")

    def key(value):
        others = {"validation_labels": "x"} if name == "validation" else {}
        given = {"source": "rows.npy", "labels": "labels.npy", name: value, **others}
        return _key.run_key("some", Some(**given), data)

    keys = [key("one.bin"), key("inside")]
    assert keys == [key("one.bin"), key("inside")]
    touched("one.bin")
    touched("inside/a.npy")
    assert not {*keys} & {key("one.bin"), key("inside")}
    before = key("one.bin")
    touched("one.meta")
    assert key("one.bin") != before


def test_the_models_of_a_sweep_are_no_files(place):
    data = lp.open_matrix("rows.npy")
    given = sweep.SweepConfig(source="rows.npy", labels="labels.npy", hold_out=20, model="logistic,mlp")
    before = _key.run_key("sweep", given, data)
    (place / "mlp").mkdir()
    (place / "mlp" / "result.json").touch()  # of another job, whose folder has that name
    assert _key.run_key("sweep", given, data) == before


def test_a_key_costs_no_reading(place, monkeypatch):
    data = lp.open_matrix("rows.npy")
    _key.code_hash()
    monkeypatch.setattr("builtins.open", None)
    monkeypatch.setattr(os, "open", None)
    assert len(_key.run_key("pca", config(), data)) == 16
