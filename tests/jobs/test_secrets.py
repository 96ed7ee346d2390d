"""Passwords in addresses are refused, those in the environment are found nowhere afterwards."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from http.server import BaseHTTPRequestHandler

import pytest
from web_servers import answering

import lazypipe as lp
from jobs import JOBS, _run, covariance, pca
from jobs._cli import reported
from jobs._config import Config
from lazypipe import tracking
from lazypipe.results import Group
from lazypipe.secrets import PASSWORD_IN_ADDRESS, hidden, hidden_in, holds_password

PASSWORD = "correct-horse/battery+staple"
SHORT = "hunter22"
KEY = "wJalrXUtnFEMI/K7MDENG"


@pytest.fixture
def planted(monkeypatch):
    """Secrets in the environment, by all that they may be seen as."""
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.setenv("DB_PASSWORD", SHORT)
    return [PASSWORD, KEY, SHORT, "correct-horse%2Fbattery%2Bstaple"]


def leaks(secrets, *texts):
    """Which secrets are in texts, or in the files below folders."""
    found = []
    for text in texts:
        paths = [path for path in text.rglob("*") if path.is_file()] if hasattr(text, "rglob") else []
        for name, content in [(str(path), path.read_bytes()) for path in paths] or [("text", str(text).encode())]:
            found += [(secret, name) for secret in secrets if secret.encode() in content]
    return found


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:pass@db/x", "postgresql://***@db/x"),
        ("at http://me:a/b@c@h:5000: refused", "at http://***@h:5000: refused"),
        ("https://ghp_token@host/x", "https://***@host/x"),
        ("s3://bucket/file@v1", "s3://bucket/file@v1"),
        ("http://127.0.0.1:5000/x@y", "http://127.0.0.1:5000/x@y"),
        ("https://b/o?X-Amz-Signature=abc&part=1", "https://b/o?X-Amz-Signature=***&part=1"),
        ("host=db password=pass dbname=x", "host=db password=*** dbname=x"),
        ("Authorization: Bearer abc.def.ghi", "Authorization: Bearer ***"),
        (f"login {SHORT} failed", "login *** failed"),
        (f"a{SHORT}b", f"a{SHORT}b"),
        (f"key{KEY}end", "key***end"),
        ("batch_size=128, n_keys=7", "batch_size=128, n_keys=7"),
    ],
)
def test_what_is_hidden(planted, text, shown):
    assert hidden(text) == shown


def test_what_is_no_secret_stays(place, monkeypatch):
    (place / "key.json").touch()
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(place / "key.json"))
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "parallel")
    monkeypatch.setenv("MONKEY", "banana")
    monkeypatch.setenv("SOME_TOKEN", "short")
    text = f"{place / 'key.json'} parallel banana short"
    assert hidden(text) == text


def test_logins_and_webhooks_of_the_environment_are_hidden(monkeypatch):
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:geheimnis-123")
    monkeypatch.setenv("LAZYPIPE_ALERT_WEBHOOK", "https://hooks.example.org/T0/B0/abcdefghijkl")
    said = hidden("admin:geheimnis-123, geheimnis-123, https://hooks.example.org/T0/B0/abcdefghijkl")
    assert said == "***, ***, ***"


def test_nested_values_are_hidden(planted):
    found = hidden_in({"a": [f"x {PASSWORD}", 3], "b": {"c": ("tcp://u:p@h", None)}})
    assert found == {"a": ["x ***", 3], "b": {"c": ["tcp://***@h", None]}}


def test_the_password_of_the_store_s_address_is_hidden_by_itself(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:open%20sesame@h:5000")
    assert hidden("denied for open sesame, open%20sesame") == "denied for ***, ***"


@pytest.mark.parametrize(
    ("address", "holds"),
    [
        ("http://me:pass@h", True), ("s3://k:s@b/x", True), ("postgresql://h/d?user=u&password=p", True),
        ("postgresql://me@h/d", False), ("http://h:5000/a:b@c", False), ("results/a:b@c", False),
    ],
)  # fmt: skip
def test_which_addresses_hold_a_password(address, holds):
    assert holds_password(address) is holds


ADDRESSES = [
    ("--source", "s3://me:{}@bucket/x.npy"),
    ("--out", "s3://me:{}@bucket/out"),
    ("--state", "s3://me:{}@bucket/state"),
    ("--scores", "s3://me:{}@bucket/scores.zarr"),
    ("--row-weights", "https://me:{}@host/w.npy"),
    ("--engine.address", "tcp://me:{}@host:8786"),
    ("--tracking.uri", "http://me:{}@host:5000"),
    ("--tracking.uri", "postgresql://host/x?user=me&password={}"),
    ("--engine.kind", "tcp://me:{}@host:8786"),
    ("--n-components", "http://me:{}@host"),
]


@pytest.mark.parametrize(("option", "address"), ADDRESSES, ids=[f"{o} {a.split(':')[0]}" for o, a in ADDRESSES])
def test_a_password_in_an_address_is_refused_and_not_shown(place, capsys, option, address):
    secret = "open-sesame"
    options = {"--source": "rows.npy", option: address.format(secret)}
    assert pca.main([word for pair in options.items() for word in pair]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith(f"ConfigError: {option}: holds a password") and "environment" in said.err
    assert secret not in said.err


def test_a_password_in_a_yaml_file_is_refused_by_its_name(place, capsys):
    (place / "job.yaml").write_text("source: rows.npy\ntracking: {uri: 'http://me:open-sesame@host'}\n")
    assert pca.main(["--config", "job.yaml"]) == 2
    said = capsys.readouterr().err
    assert "job.yaml: tracking.uri: holds a password" in said and "sesame" not in said


def test_errors_of_a_config_show_no_password():
    with pytest.raises(ValueError, match="holds a password") as caught:
        pca.PCAConfig(source="s3://me:open-sesame@b/x", engine={"address": "tcp://me:open-sesame@h"})
    assert "sesame" not in str(caught.value)


def configs():
    from importlib import import_module

    modules = [import_module(f"jobs.{name}") for name in JOBS]
    found = [value for module in modules for value in vars(module).values() if isinstance(value, type)]
    return sorted({kind for kind in found if issubclass(kind, Config)}, key=lambda kind: kind.__name__)


def texts(schema, path=""):
    """Every text in a JSON schema that may be anything."""
    if schema.get("type") == "string" and "enum" not in schema and "const" not in schema:
        yield path, schema
    parts = [*schema.get("properties", {}).items(), *schema.get("$defs", {}).items()]
    parts += [("", part) for name in ("anyOf", "prefixItems") for part in schema.get(name, ())]
    for name, part in [*parts, ("", schema.get("items"))]:
        if isinstance(part, dict):
            yield from texts(part, f"{path}.{name}")


@pytest.mark.parametrize("config", configs(), ids=lambda kind: kind.__name__)
def test_the_schema_of_every_config_refuses_them_too(config):
    for path, schema in texts(config.model_json_schema()):
        assert schema.get("not", {}).get("pattern") == PASSWORD_IN_ADDRESS, path


def test_prefect_refuses_them_by_the_schema():
    from prefect.utilities.callables import parameter_schema
    from prefect.utilities.schema_tools.validation import is_valid

    from flows.pca import pca as flow

    schema = parameter_schema(flow).model_dump()
    assert is_valid({"config": {"source": "s3://bucket/x.npy"}}, schema)
    for bad in (
        {"source": "s3://me:pass@bucket/x.npy"},
        {"source": "x.npy", "tracking": {"uri": "http://me:pass@host"}},
        {"source": "x.npy", "engine": {"address": "tcp://me:pass@host:8786"}},
    ):
        assert not is_valid({"config": bad}, schema)


def test_errors_and_tracebacks_are_told_without_secrets(planted, capsys):
    try:
        raise lp.DataError(f"http://me:{SHORT}@h: {PASSWORD} at {KEY}")
    except lp.DataError as error:
        assert reported(error, debug=False) == 2
        assert reported(error, debug=True) == 2
    said = capsys.readouterr().err
    assert "DataError: http://***@h: *** at ***" in said and "Traceback" in said
    assert not leaks(planted, said)


def test_an_error_nobody_foresaw_is_told_without_secrets(place, planted):
    program = "from jobs._cli import command; from jobs.pca import PCAConfig\n"
    program += f"command('pca', PCAConfig, lambda _: {{}}[{KEY!r}], ['--source', 'x'])"
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)
    assert done.returncode == 1 and "KeyError" in done.stderr
    assert not leaks(planted, done.stdout, done.stderr)


def test_what_is_in_the_environment_is_in_no_result_store_or_line(place, planted, capsys, monkeypatch):
    """A secret that got into a path, and into an error, is in nothing that the run leaves."""
    folder = place / f"of {SHORT}"
    folder.mkdir()
    shutil.copy(place / "rows.npy", folder / "rows.npy")
    store = f"sqlite:///{place}/mlflow.db"
    options = ["--engine.kind", "serial", "--tracking.uri", store, "--n-components", "2"]
    assert pca.main(["--source", str(folder / "rows.npy"), *options, "--out", "out"]) == 0
    monkeypatch.setattr(lp.PCA, "fit", lambda *args, **kwargs: failing(PASSWORD))
    assert pca.main(["--source", str(folder / "rows.npy"), *options, "--seed", "1"]) == 2
    said = capsys.readouterr()
    shutil.rmtree(folder)
    assert "the cluster refused *** " in said.err
    assert json.loads((place / "out" / "result.json").read_text())["config"]["source"].endswith("of ***/rows.npy")
    assert not leaks(planted, said.out, said.err, place)


def test_tables_and_attributes_of_a_result_show_no_secret(place, planted):
    """An error of the cluster's may stand in a cell, a path in an attribute."""

    def work(matrix, engine, history):
        answered = covariance.work_of(config).work(matrix, engine, history)
        answered.tables = {"cells": [("C", "note"), (1.0, f"the cluster refused {PASSWORD}")]}
        answered.groups = {"sta": Group({}, {"spikes": f"{KEY}/spikes.npz"})}
        return answered

    config = covariance.CovarianceConfig(
        source="rows.npy", out="out", engine={"kind": "serial"}, tracking={"enabled": False}
    )
    _run.carry_out(config, replace(covariance.work_of(config), work=work))
    assert (place / "out" / "cells.csv").read_text() == "C,note\n1.0,the cluster refused ***\n"
    assert json.loads((place / "out" / "sta.zarr" / "zarr.json").read_text())["attributes"] == {
        "spikes": "***/spikes.npz"
    }
    assert not leaks(planted, place)


def failing(secret):
    raise lp.EngineError(f"the cluster refused {secret} of tcp://me:{secret}@host")


class Unwell(BaseHTTPRequestHandler):
    """Answers 503 to everything."""

    def do_GET(self):
        self.send_error(503)


def test_the_password_of_a_store_that_fails_is_not_shown(place, monkeypatch, capsys):
    with answering(Unwell) as address:
        host = address.removeprefix("http://")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:open-sesame@{host}")
        assert pca.main(["--source", "rows.npy", "--n-components", "2", "--engine.kind", "serial"]) == 2
    said = capsys.readouterr()
    assert f"http://***@{host}: the MLflow server answers 503" in said.err
    assert not leaks(["open-sesame"], said.out, said.err, place)


def test_whoever_asks_a_store_for_its_address_sees_no_password(monkeypatch):
    run = tracking.TrackedRun(None, "http://me:open-sesame@h:5000/", "r", "pca", "7")
    assert run.describe()["uri"] == "http://***@h:5000/"
    assert run.describe()["url"] == "http://h:5000/#/experiments/7/runs/r"
