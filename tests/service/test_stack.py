"""The stack as people use it: up, status, down, one server alone, and what it refuses."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
from prefect_server import ROOT
from service.clusters import needs_java
from service.stacks import stack_in

from flows.stack.config import StackConfig
from flows.stack.processes import family, marked, records

SERVERS = {"prefect", "worker", "mlflow", "dask-scheduler", "dask-worker-1", "dask-worker-2"}


def listening(folder: Path) -> list[tuple[str, int, str]]:
    """(address, port, process) of every socket that a process of a stack listens on."""
    processes = {p.pid: p for record in records(folder).values() for p in family(record)}
    processes |= {p.pid: p for p in marked(folder)}
    return [
        (connection.laddr.ip, connection.laddr.port, " ".join(process.cmdline()[:5]))
        for process in processes.values()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN or connection.type == 2  # a datagram socket has no state
    ]


def states(status: subprocess.CompletedProcess) -> dict[str, str]:
    """The state of each server in a printed table."""
    return {line.split()[0]: line.split()[1] for line in status.stdout.splitlines()[2:] if len(line.split()) > 3}


def test_every_server_answers_and_the_deployments_are_registered(stack):
    status = stack.verb("status")
    assert status.returncode == 0, status.stdout + status.stderr
    found = states(status)
    assert {name: found[name] for name in SERVERS} == dict.fromkeys(SERVERS, "up")
    assert f"http://127.0.0.1:{stack.ports['mlflow']}" in status.stdout
    assert stack.deployment("pca/pca-nightly")["schedules"]
    assert stack.api.get("/v2/concurrency_limits/gpu").json()["limit"] == 1


def test_one_of_two_dask_workers_has_the_resource_gpu_and_both_a_memory_limit(stack):
    from distributed import Client

    with Client(stack.dask_address, timeout="60s") as client:
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
    assert sorted(worker["resources"].get("GPU", 0) for worker in workers) == [0, 1]
    assert {worker["memory_limit"] for worker in workers} == {2**30}


def test_nothing_listens_beyond_loopback(stack):
    found = listening(stack.folder)
    assert {port for _, port, _ in found} >= {stack.ports[name] for name in ("prefect", "mlflow", "dask", "dask-page")}
    assert [one for one in found if one[0] not in ("127.0.0.1", "::1")] == []


def test_a_second_up_says_that_all_is_up_and_leaves_it_alone(stack):
    before = {name: record.pid for name, record in records(stack.folder).items()}
    again = stack.verb("up")
    assert again.returncode == 0, again.stderr
    assert "All of it was up already." in again.stdout
    assert {name: record.pid for name, record in records(stack.folder).items()} == before


def test_other_ports_than_those_of_a_running_stack_are_refused(stack):
    refused = stack.verb("up", "--ports.mlflow", "5999")
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1
    assert f"runs with --ports.mlflow {stack.ports['mlflow']}, not 5999" in refused.stderr


def test_the_lines_for_a_shell_lead_prefect_and_mlflow_to_the_servers(stack):
    lines = stack.verb("env").stdout
    command = 'eval "$1"; echo "$PREFECT_API_URL $MLFLOW_TRACKING_URI"'
    said = subprocess.run(["sh", "-c", command, "sh", lines], check=True, capture_output=True, text=True).stdout
    assert said.split() == [stack.env["PREFECT_API_URL"], stack.mlflow_uri]
    assert stack.dask_address in lines


def test_a_job_is_tracked_on_the_server_with_its_figures_behind_it(stack, tiny, tmp_path):
    command = ("-m", "jobs", "pca", "--source", str(tiny[0]), "--n-components", "3", "--out", str(tmp_path / "out"))
    address = ("--engine.kind", "dask", "--engine.address", stack.dask_address)
    experiment = ("--tracking.uri", stack.mlflow_uri, "--tracking.experiment", "stack-figures")
    done = subprocess.run(
        [sys.executable, *command, *address, *experiment],
        check=False,
        cwd=tmp_path,
        env=stack.env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    (run,) = stack.experiment("stack-figures")
    assert run["info"]["status"] == "FINISHED"
    kept = {path.name for path in (stack.folder / "mlflow" / "artifacts").rglob("*.png")}
    assert "scree.png" in kept


def test_a_server_that_was_killed_is_told_and_started_again(stack):
    record = records(stack.folder)["dask-worker-2"]
    os.kill(record.pid, signal.SIGKILL)
    stack.wait_for(lambda: record.process() is None, 10, "the worker to end")
    status = stack.verb("status")
    assert status.returncode == 1
    assert states(status)["dask-worker-2"] == "down"
    assert states(status)["dask-worker-1"] == "up"
    healed = stack.verb("up")
    assert healed.returncode == 0, healed.stderr
    assert [line.split()[0] for line in healed.stderr.splitlines() if " answers after " in line] == ["dask-worker-2"]
    assert stack.verb("status").returncode == 0


@needs_java
def test_spark_alone_has_a_master_and_two_workers_on_loopback_and_goes_with_down(project):
    with stack_in(project) as stack:
        started = stack.verb("start spark")
        assert started.returncode == 0, started.stderr + stack.logs()
        status = stack.verb("status")
        assert status.returncode == 0, status.stdout
        assert states(status) == dict.fromkeys(("spark-master", "spark-worker-1", "spark-worker-2"), "up")
        assert stack.spark_address in stack.verb("env").stdout
        found = listening(stack.folder)
        assert {port for _, port, _ in found} >= {stack.ports["spark"], stack.ports["spark-page"]}
        assert [one for one in found if one[0].removeprefix("::ffff:") not in ("127.0.0.1", "::1")] == []
        pids = [record.pid for record in records(stack.folder).values()]
        down = stack.verb("down")
        assert "ended spark-worker" in down.stdout and "spark-master" in down.stdout
        assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_port_that_is_taken_is_named_with_its_holder_and_nothing_stays_started(project):
    with stack_in(project, "--database", "sqlite") as stack, socket.socket() as other:
        other.bind(("127.0.0.1", stack.ports["mlflow"]))
        other.listen()
        refused = stack.verb("up", seconds=120)
        assert refused.returncode == 2
        (line,) = refused.stderr.splitlines()
        assert f"127.0.0.1:{stack.ports['mlflow']} is taken by process {os.getpid()}" in line
        assert "--ports.mlflow" in line
        assert records(stack.folder) == {}
        assert marked(stack.folder) == []


def test_an_up_killed_in_the_middle_holds_its_folder_until_then_and_down_clears_up(project):
    with stack_in(project, "--database", "sqlite") as stack:
        first = stack.popen("up")
        try:
            stack.wait_for(lambda: len(records(stack.folder)) >= 3, 60, "the first servers to be started")
            second = stack.verb("up", seconds=120)
            assert second.returncode == 2
            (line,) = second.stderr.splitlines()
            assert f"another command holds this stack (process {first.pid} of " in line
        finally:
            first.kill()
            first.communicate()
        pids = {record.pid for record in records(stack.folder).values()}
        assert any(psutil.pid_exists(pid) for pid in pids)
        assert stack.verb("down").returncode == 0
        assert marked(stack.folder) == []
        assert not any(psutil.pid_exists(pid) for pid in pids)
        again = stack.verb("down")
        assert again.returncode == 0 and "nothing runs here" in again.stdout


def test_a_server_that_ends_at_its_start_is_told_with_its_last_words_and_the_rest_ends_too(project):
    with stack_in(project, "--database", "sqlite") as stack:
        (stack.folder / "mlflow").mkdir()
        (stack.folder / "mlflow" / "mlflow.db").write_text("this is no database, although it is long enough to be read")
        failed = stack.verb("start mlflow")
        assert failed.returncode == 2
        line = failed.stderr.splitlines()[-1]
        assert line.startswith("EngineError: mlflow: ended at its start")
        assert "not a database" in line
        assert str(stack.folder / "logs" / "mlflow.log") in line
        assert records(stack.folder) == {}
        assert marked(stack.folder) == []


def test_down_leaves_a_process_alone_that_has_the_number_of_one_that_ended(project):
    with stack_in(project) as stack:
        other = subprocess.Popen(["sleep", "60"])
        try:
            folder = stack.folder / "processes"
            folder.mkdir()
            record = {"name": "mlflow", "pid": other.pid, "started": time.time() - 3600}
            (folder / "mlflow.json").write_text(json.dumps(record))
            assert stack.verb("down").returncode == 0
            assert other.poll() is None
        finally:
            other.kill()
            other.wait()


def test_the_settings_of_conf_are_the_defaults():
    from jobs._config import read_yaml

    assert StackConfig.model_validate(read_yaml(ROOT / "conf" / "stack.yaml")) == StackConfig()
