"""Engines that cannot work say so in one line, soon."""

import time

import pytest

import lazypipe as lp


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"kind": "sprak"}, lp.ConfigError, "'sprak' is not one of serial, dask, spark"),
        ({"memory": "lots"}, lp.ConfigError, "'lots' is no size"),
        ({"memory": "1MiB"}, lp.ConfigError, "at least 16MiB"),
        ({"workers": 0}, lp.ConfigError, "workers: 0"),
        ({"kind": "serial", "address": "tcp://x:1"}, lp.ConfigError, "serial has no address"),
        ({"kind": "dask", "address": "tcp://127.0.0.1:1"}, lp.EngineError, "no scheduler answers at tcp://127.0.0.1:1"),
        ({"kind": "dask", "address": "nonsense"}, lp.RefusedError, "nonsense is no address of a scheduler"),
        ({"kind": "spark", "address": "spark://127.0.0.1:1"}, lp.EngineError, "nobody listens at spark://127.0.0.1:1"),
        ({"kind": "spark", "address": "localhost:7077"}, lp.RefusedError, "localhost:7077 is no master"),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_what_cannot_be_opened(arguments, error, words):
    begun = time.monotonic()
    with pytest.raises(error, match=words) as caught:
        lp.open_engine(**arguments)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - begun < 10


def test_spark_without_java_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(lp.EngineError, match=r"no java on the PATH\. Install Java 17 or 21"):
        lp.open_engine("spark")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(lp.EngineError, match="has no bin/java"):
        lp.open_engine("spark")


@pytest.mark.parametrize(("version", "called"), [("11.0.2", "11"), ("1.8.0_392", "8")])
def test_an_old_java_is_refused(monkeypatch, tmp_path, version, called):
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(lp.EngineError, match="has no bin/java"):  # that may be run
        lp.open_engine("spark")
    java.chmod(0o755)
    with pytest.raises(lp.EngineError, match=f"Java {called} is too old"):
        lp.open_engine("spark")
