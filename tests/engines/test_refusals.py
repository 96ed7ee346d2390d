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


def test_an_old_java_is_refused(monkeypatch, tmp_path):
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(lp.EngineError, match="Java 11 is too old"):
        lp.open_engine("spark")
