"""``python -m flows.deploy``: faults of prefect.yaml are told by deployment and field."""

import pytest
from prefect_server import ROOT

from flows import _vanished, deploy

GOOD = """
name: test
deployments:
  - name: one
    entrypoint: flows/pca.py:pca
    parameters: {config: {source: rows.npy, n_components: 3, state: states/one}}
    schedules: [{cron: "0 2 * * *", timezone: Etc/UTC}]
    work_pool: {name: lazypipe}
"""
OTHER = """
  - name: two
    entrypoint: flows/covariance.py:covariance
    parameters: {config: {source: rows.npy, state: ./states/one}}
    work_pool: {name: lazypipe}
"""


@pytest.fixture
def check(tmp_path, capsys, monkeypatch):
    """The lines that a file is refused with; none where it is taken."""
    (tmp_path / "flows").symlink_to(ROOT / "flows")
    monkeypatch.delenv("PREFECT_LOGGING_LEVEL", raising=False)

    def lines(text):
        (tmp_path / "prefect.yaml").write_text(text)
        code = deploy.main(["--check", "--file", str(tmp_path / "prefect.yaml")])
        said = capsys.readouterr()
        found = [line.removeprefix(f"ConfigError: {tmp_path / 'prefect.yaml'}: ") for line in said.err.splitlines()]
        assert code == (2 if found else 0), said
        return found

    return lines


def test_the_deployments_of_the_project_have_no_fault(capsys):
    assert deploy.main(["--check", "--file", str(ROOT / "prefect.yaml")]) == 0
    assert "deployments, no fault" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("0 2 * * *", "0 25 * * *", "one: schedules[0].cron: '0 25 * * *' does not parse"),
        ("Etc/UTC", "Europ/Paris", "one: schedules[0].timezone: no time zone 'Europ/Paris'; the nearest is 'Europe/P"),
        ('cron: "0 2 * * *", ', "", "one: schedules[0]: needs one of cron, interval and rrule, has none"),
        ('cron: "0 2 * * *", timezone: Etc/UTC', "interval: -5", "one: schedules[0].interval: input should be greater"),
        ('cron: "0 2 * * *"', "crom: x", "one: schedules[0].crom: unknown name; the nearest is 'cron'"),
        ("{config: ", "{confg: ", "one: parameters.confg: unknown parameter; the nearest is 'config'"),
        ("n_components", "n_componets", "one: parameters.config.n_componets: unknown name; the nearest is 'n_compon"),
        ("n_components: 3", "n_components: 0", "one: parameters.config.n_components: input should be greater than or"),
        ("n_components: 3", "engine: {kind: sprak}", "one: parameters.config.engine.kind: input should be 'serial'"),
        ("source: rows.npy, ", "", "one: parameters.config.source: is missing"),
        ("flows/pca.py:pca", "flows/pcx.py:pca", "one: entrypoint: flows/pcx.py: no such file in "),
        ("flows/pca.py:pca", "flows/pca.py:pxa", "one: entrypoint: 'flows/pca.py:pxa': "),
        ("flows/pca.py:pca", "flows.pca", "one: entrypoint: 'flows.pca' is not FILE.py:FLOW"),
        ("work_pool: {name: lazypipe}", "tags: [a]", "one: work_pool: is missing"),
        ("work_pool", "concurrency_limit: {limit: 0}\n    work_pool", "one: concurrency_limit.limit: input should be"),
        ("name: test", "nmae: test", "nmae: unknown name; the nearest is 'name'"),
        ("deployments:", "deployment:", "deployments: is no list of deployments"),
        ("[{cron", "[[{cron", "is not YAML at line "),
    ],
)
def test_a_fault_is_told_by_deployment_and_field(check, old, new, said):
    found = check(GOOD.replace(old, new, 1))
    assert any(line.startswith(said) for line in found), found


def test_all_faults_are_told_at_once_and_states_are_not_shared(check, tmp_path):
    assert check(GOOD) == []
    found = check(GOOD.replace("rows.npy", "rows.npy, colour: 1") + OTHER)
    assert len(found) == 1 and "colour" in found[0]  # a config that is refused has no state
    [found] = check(GOOD + OTHER)
    assert found == (
        "two: parameters.config.state: ./states/one is the state folder of pca/one, too. Give each deployment its own."
    )
    address = f"file://{tmp_path}/states/one"
    [found] = check(GOOD + OTHER.replace("./states/one", address))
    assert found.startswith(f"two: parameters.config.state: {address} is the state folder of pca/one, too")
    found = check(GOOD + OTHER.replace("./states/one", "states/two") + GOOD.partition("deployments:")[2])
    assert found == ["one: name: there are two deployments pca/one. Give one another name."]


OWN = """
from prefect import flow


@flow
def own(n: int, m: int = 3):
    return n + m
"""
ONE = "parameters: {n: 1}\n    schedules: [{interval: 60, parameters: "


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("parameters: {n: 1}", []),
        ("parameters: {n: 1, m: 2}", []),
        ("parameters: {m: 2}", ["x: parameters.n: is missing."]),
        ("parameters: {n: many}", ["x: parameters.n: input should be a valid integer, unable to parse string as"]),
        ("parameters: {n: 1, k: 1}", ["x: parameters.k: unknown parameter; known: n, m."]),
        ("schedules: [{interval: 60, parameters: {n: 1}}]", []),
        ("schedules: [{interval: 60, parameters: {n: x}}]", ["x: schedules[0].parameters.n: input should be a valid"]),
        ("schedules: [{interval: 60, parameters: {n: 1}}, {interval: 90}]", ["x: schedules[1].parameters.n: is missi"]),
        ("schedules: [{interval: 60}, {interval: 90}]", ["x: parameters.n: is missing."]),
        (f"{ONE}{{m: x}}}}]", ["x: schedules[0].parameters.m: input should be a valid integer"]),
        (f"{ONE}{{k: 1}}}}]", ["x: schedules[0].parameters.k: unknown parameter; known: n, m."]),
    ],
)
def test_parameters_are_those_of_the_deployment_and_of_its_schedules(check, tmp_path, given, said):
    (tmp_path / "own.py").write_text(OWN)
    head = "deployments:\n  - name: x\n    entrypoint: own.py:own\n    work_pool: {name: lazypipe}\n    "
    found = check(f"{head}{given}\n")
    assert len(found) == len(said), found
    assert all(line.startswith(start) for line, start in zip(found, said, strict=True)), found


def test_a_config_of_a_schedule_is_whole(check):
    schedule = "timezone: Etc/UTC, parameters: {config: {n_components: 5}}"
    assert check(GOOD.replace("timezone: Etc/UTC", schedule)) == [
        "one: schedules[0].parameters.config.source: is missing: a schedule's parameter takes the place of all of the "
        "deployment's."
    ]
    schedule = "timezone: Etc/UTC, parameters: {config: {source: rows.npy, n_components: 0}}"
    [found] = check(GOOD.replace("timezone: Etc/UTC", schedule))
    assert found.startswith("one: schedules[0].parameters.config.n_components: input should be greater than or")


def test_a_state_has_one_owner_also_among_schedules_and_flows_of_equal_names(check):
    same = "timezone: Etc/UTC, parameters: {config: {source: rows.npy, n_components: 5, state: states/one}}"
    assert check(GOOD.replace("timezone: Etc/UTC", same)) == []
    assert check(GOOD + OTHER.replace("name: two", "name: one")) == [
        "one: parameters.config.state: ./states/one is the state folder of pca/one, too. Give each deployment its own."
    ]
    schedule = "    schedules: [{interval: 60, parameters: {config: {source: rows.npy, state: states/one}}}]\n"
    [found] = check(GOOD + OTHER.replace(", state: ./states/one", "") + schedule)
    assert found.startswith("two: schedules[0].parameters.config.state: states/one is the state folder of pca/one, too")


def test_the_automation_for_runs_that_vanished_is_made_once_and_brought_up_to_date(alone, monkeypatch):
    monkeypatch.setattr(_vanished, "NAME", "of a test")
    monkeypatch.delenv("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", raising=False)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # through which nobody reaches this machine

    def made():
        _vanished.make_automation(f"http://127.0.0.1:{alone.port}/api")
        [one] = alone.post("/automations/filter", automations={"name": {"any_": ["of a test"]}}).json()
        return one["id"], one["trigger"]["within"]

    first = made()
    assert made() == first and first[1] == 540
    monkeypatch.setenv("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "60")
    second = made()
    assert second[0] != first[0] and second[1] == 180
    alone.api.delete(f"/automations/{second[0]}")


def test_an_unknown_option_is_told_in_a_line(capsys):
    assert deploy.main(["--chek"]) == 2
    said = capsys.readouterr().err
    assert said == "ConfigError: unrecognized arguments: --chek. See python -m flows.deploy --help.\n"
