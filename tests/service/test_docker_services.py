"""The services of docker/compose.yaml, run as they are written, where no container engine is.

Each has a network namespace to itself, with its name in /etc/hosts, and the command, environment and health check that
the compose files give it; a user of its own it has only with $LAZYPIPE_ROOTFS, the unpacked files of an image of the
driver, which are then run instead of this environment's. PostgreSQL is this machine's, MinIO's place is taken by moto.
"""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml

import lazypipe as lp

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
BIN = Path(sys.executable).parent
ROOTFS = os.environ.get("LAZYPIPE_ROOTFS")
POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)), None)
PREFIX = "lpc"  # of the namespaces
PASSWORD = "it's a p@ss/word: 100%"
SECRET = "minio-secret-key"
VALUES = {"POSTGRES_PASSWORD": PASSWORD, "MINIO_ROOT_USER": "minio-user", "MINIO_ROOT_PASSWORD": SECRET}
START_SECONDS = 300
# In the files of an image, as its user, with the hosts of the namespace.
ENTER = (
    f'mount --bind /etc/hosts {ROOTFS}/etc/hosts && exec chroot --userspec=1000:1000 {ROOTFS} env -C /opt/lazypipe "$@"'
)
INSIDE = ("sh", "-c", ENTER, "enter") if ROOTFS else ()

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="network namespaces need root and ip"),
    pytest.mark.skipif(POSTGRES is None, reason="no PostgreSQL here"),
    pytest.mark.skipif(not shutil.which("java"), reason="no Java here"),
]


def services():
    """What compose makes of its files: those of compose.s3.yaml laid over, variables filled in."""
    merged = {}
    for name in ("compose.yaml", "compose.s3.yaml"):
        for service, given in yaml.safe_load((DOCKER / name).read_text())["services"].items():
            into = merged.setdefault(service, {})
            for key, value in given.items():
                into[key] = into[key] | value if isinstance(value, dict) and key in into else value
    return filled(merged)


def filled(value):
    if isinstance(value, dict):
        return {key: filled(one) for key, one in value.items()}
    if isinstance(value, list):
        return [filled(one) for one in value]
    if not isinstance(value, str):
        return value
    return re.sub(r"\$\{(\w+)(?::[-?]([^}]*))?\}", lambda found: VALUES.get(found[1], found[2]), value)


def image_environment():
    """What the Dockerfile sets for all images."""
    text = (DOCKER / "Dockerfile").read_text().replace("\\\n", " ")
    block = next(line for line in text.splitlines() if line.startswith("ENV PATH") and "PYSPARK_PYTHON" in line)
    return dict(word.split("=", 1) for word in shlex.split(block.removeprefix("ENV ")))


class Network:
    """A bridge with a namespace for each service, which ``start`` fills."""

    def __init__(self, folder):
        self.folder, self.services, self.processes = folder, services(), {}
        self.postgres = folder / "none"
        self.image = image_environment()
        self.hosts = {name: f"10.77.0.{i}" for i, name in enumerate(self.services, 2)}

    def __enter__(self):
        self.clear()
        try:
            self.build()
        except BaseException:
            self.clear()
            raise
        return self

    def build(self):
        """The bridge, and a namespace and a link for each service."""
        ip("link", "add", f"{PREFIX}-br", "type", "bridge")
        ip("link", "set", f"{PREFIX}-br", "up")
        lines = "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in self.hosts.items())
        for i, (name, address) in enumerate(self.hosts.items()):
            space = f"{PREFIX}-{name}"
            (Path("/etc/netns") / space).mkdir(parents=True, exist_ok=True)
            own = f"{address} {os.uname().nodename}\n"  # as an engine adds it: Spark asks for its own address
            (Path("/etc/netns") / space / "hosts").write_text(lines + own)
            ip("netns", "add", space)
            ip("link", "add", f"{PREFIX}{i}", "type", "veth", "peer", "name", "eth0", "netns", space)
            ip("link", "set", f"{PREFIX}{i}", "master", f"{PREFIX}-br", "up")
            ip("-n", space, "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", space, "link", "set", "eth0", "up")
            ip("-n", space, "link", "set", "lo", "up")
        ip("address", "add", "10.77.0.1/24", "dev", f"{PREFIX}-br")  # where this test looks from

    def __exit__(self, *_):
        for process in reversed(self.processes.values()):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)
        self.clear()

    def clear(self):
        """End what lies in the namespaces and take them away, those of a test that was killed, too."""
        for space in [f"{PREFIX}-{name}" for name in self.hosts]:
            left = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True, check=False).stdout
            for pid in left.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "delete", space], capture_output=True, check=False)
            shutil.rmtree(Path("/etc/netns") / space, ignore_errors=True)
        links = [f"{PREFIX}{i}" for i in range(len(self.hosts))]
        for link in [*links, f"{PREFIX}-br"]:  # a link outlives its namespace for a moment
            subprocess.run(["ip", "link", "delete", link], capture_output=True, check=False)
        shutil.rmtree(self.postgres, ignore_errors=True)

    def placed(self, text):
        """A path of the image as one of this machine."""
        if ROOTFS:
            return text
        for inside, here in (("/opt/lazypipe", self.folder), ("/opt/venv/bin", BIN), ("/home/lazypipe", self.folder)):
            text = text.replace(inside, str(here))
        return text

    def call(self, name, *more):
        """How a service is called, and with which environment."""
        service = self.services[name]
        given = {key: str(value) for key, value in service.get("environment", {}).items()}
        path = f"{self.image['PATH'].replace('$PATH', '')}{os.environ['PATH']}"
        home = "/home/lazypipe" if ROOTFS else str(self.folder)
        environment = {**self.image, "PATH": path, "HOME": home, **given}
        if not ROOTFS:
            environment["PYTHONPATH"] = str(self.folder)  # as the current folder, which programs do not look in
        environment = {key: self.placed(value) for key, value in environment.items()}
        words = [*service.get("entrypoint", []), *(more or split(service["command"]))]
        return ["ip", "netns", "exec", f"{PREFIX}-{name}", *INSIDE, *words], environment

    def start(self, *names):
        for name in names:
            command, environment = self.call(name)
            with open(self.folder / f"{name}.log", "w") as log:
                self.processes[name] = subprocess.Popen(
                    command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
                )

    def run(self, name, *arguments, seconds=600):
        command, environment = self.call(name, *arguments)
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=seconds, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def healthy(self, name):
        """The health check of the image, in the service's place."""
        _, environment = self.call(name)
        check = ["ip", "netns", "exec", f"{PREFIX}-{name}", sys.executable, DOCKER / "healthy.py"]
        return subprocess.run(check, env=environment, capture_output=True, text=True, timeout=20, check=False)

    def wait_until_healthy(self, *names):
        deadline = time.monotonic() + START_SECONDS
        for name in names:
            while (said := self.healthy(name)).returncode:
                log = (self.folder / f"{name}.log").read_text()[-2000:]
                assert self.processes[name].poll() is None, f"{name} has ended:\n{log}"
                assert time.monotonic() < deadline, f"{name} is not healthy: {said.stderr}\n{log}"
                time.sleep(1)

    def at(self, name, port):
        return f"http://{self.hosts[name]}:{port}"

    def start_postgres(self):
        """PostgreSQL as its image starts it: user, password, database, then the scripts."""
        given = self.services["postgres"]["environment"]
        name, data = "postgres", Path(tempfile.mkdtemp(prefix="lazypipe-postgres-"))  # pytest's own are root's alone
        self.postgres = data
        (data / "password").write_text(given["POSTGRES_PASSWORD"])
        for path in (data, data / "password"):
            shutil.chown(path, "postgres")
        user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        made = [*user, POSTGRES, "-D", data / "data", "-U", given["POSTGRES_USER"], "--auth=scram-sha-256",
                f"--pwfile={data}/password"]  # fmt: skip
        subprocess.run(made, check=True, capture_output=True, cwd=data, timeout=60)
        with open(data / "data/pg_hba.conf", "a") as file:
            file.write("host all all all scram-sha-256\n")
        server = [POSTGRES.with_name("postgres"), "-D", data / "data", "-h", "0.0.0.0", "-k", data]
        with open(self.folder / "postgres.log", "w") as log:
            self.processes[name] = subprocess.Popen(
                ["ip", "netns", "exec", f"{PREFIX}-{name}", *user, *server], cwd=data, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        psql = ["psql", "-h", self.hosts[name], "-U", given["POSTGRES_USER"], "-v", "ON_ERROR_STOP=1"]
        environment = os.environ | {"PGPASSWORD": given["POSTGRES_PASSWORD"]}
        deadline = time.monotonic() + 30
        first = [*psql, "-d", "postgres", "-c", f"CREATE DATABASE {given['POSTGRES_DB']}"]
        while subprocess.run(first, env=environment, capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline, (self.folder / "postgres.log").read_text()
            time.sleep(0.5)
        script = [*psql, "-d", given["POSTGRES_DB"], "-f", DOCKER / "mlflow.sql"]
        subprocess.run(script, env=environment, check=True, capture_output=True, timeout=30)

    def start_minio(self):
        """moto where MinIO would be: any keys do, but the names of buckets and objects are kept."""
        command = ["ip", "netns", "exec", f"{PREFIX}-minio", BIN / "moto_server", "-H", "0.0.0.0", "-p", "9000"]
        with open(self.folder / "minio.log", "w") as log:
            self.processes["minio"] = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 60
        while True:
            try:
                return httpx.get(self.at("minio", 9000), trust_env=False)
            except httpx.TransportError:
                assert time.monotonic() < deadline, (self.folder / "minio.log").read_text()
                time.sleep(0.5)


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=20)


def split(command):
    return shlex.split(command) if isinstance(command, str) else command


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compose")
    for name in ("flows", "jobs", "lazypipe", "conf", "prefect.yaml"):
        (folder / name).symlink_to(ROOT / name)
    data = (Path(ROOTFS) / "opt/lazypipe" if ROOTFS else folder) / "data"
    data.mkdir(exist_ok=True)
    rows = np.random.default_rng(0).normal(size=(300, 40)) * 1.3 ** -np.arange(40.0)
    np.save(data / "wide.npy", rows.astype(np.float32))
    with Network(folder) as network:
        network.data = data
        network.start_postgres()
        network.start("dask-scheduler")
        network.start_minio()
        network.run("bucket")
        network.start("prefect", "mlflow", "dask-worker")
        network.wait_until_healthy("dask-scheduler", "dask-worker", "prefect", "mlflow")
        yield network


def read(network, path):
    return np.load((Path(ROOTFS) / "opt/lazypipe" if ROOTFS else network.folder) / path)


def test_jobs_run_on_the_dask_cluster_and_their_artifacts_go_through_mlflow_to_the_store(network):
    said = network.run(
        *("jobs", "pca", "--source", "data/wide.npy", "--n-components", "3", "--out", "results/dask"),
        *("--engine.kind", "dask", "--engine.address", "tcp://dask-scheduler:8786", "--engine.memory", "64MiB"),
    )
    run = re.search(r"run (\w{32})", said)[1]
    assert "http://mlflow:5000" in said
    keys = httpx.get(network.at("minio", 9000) + "/mlflow?list-type=2", trust_env=False).text
    assert f"{run}/artifacts/scree.png" in keys
    assert PASSWORD not in said
    for name in ("mlflow", "prefect"):
        assert PASSWORD not in (network.folder / f"{name}.log").read_text()
        assert SECRET not in (network.folder / f"{name}.log").read_text()


def test_the_bucket_is_made_once(network):
    network.run("bucket")


def test_jobs_run_on_the_spark_cluster_with_the_same_bits(network):
    network.start("spark-master")
    network.wait_until_healthy("spark-master")
    network.start("spark-worker")
    network.wait_until_healthy("spark-worker")
    network.run(
        *("jobs", "pca", "--source", "data/wide.npy", "--n-components", "3", "--out", "results/spark"),
        *("--engine.kind", "spark", "--engine.address", "spark://spark-master:7077", "--engine.memory", "64MiB"),
    )
    with lp.open_engine("serial", memory="64MiB") as engine:
        wanted = lp.PCA(3).fit(network.data / "wide.npy", engine=engine).components_
    assert np.array_equal(read(network, "results/spark/components.npy"), wanted)


def test_a_worker_takes_gpu_tasks_where_it_says_that_it_has_one(network):
    network.start("dask-gpu-worker")
    network.wait_until_healthy("dask-gpu-worker")
    workers = httpx.get(network.at("dask-scheduler", 8787) + "/json/identity.json", trust_env=False).json()["workers"]
    assert sorted(worker["resources"].get("GPU", 0) for worker in workers.values()) == [0, 1]


def test_deployments_are_registered_and_a_run_completes(network):
    network.run("deploy")
    network.start("prefect-worker")
    network.wait_until_healthy("prefect-worker")
    with httpx.Client(base_url=network.at("prefect", 4200) + "/api", timeout=30, trust_env=False) as api:
        deployment = api.get("/deployments/name/pca/pca").raise_for_status().json()
        config = {"source": "data/wide.npy", "n_components": 3, "out": "results/flow", "engine": {"memory": "64MiB"}}
        asked = {"parameters": {"config": config}, "state": {"type": "SCHEDULED"}}
        run = api.post(f"/deployments/{deployment['id']}/create_flow_run", json=asked).raise_for_status().json()
        deadline = time.monotonic() + 400
        while (state := api.get(f"/flow_runs/{run['id']}").json()["state"])["type"] != "COMPLETED":
            assert state["type"] in ("SCHEDULED", "PENDING", "RUNNING"), state
            assert time.monotonic() < deadline, state
            time.sleep(1)
    assert read(network, "results/flow/components.npy").shape == (3, 40)


def test_a_service_that_died_is_not_healthy(network):
    os.killpg(network.processes["dask-worker"].pid, signal.SIGKILL)
    network.processes["dask-worker"].wait(10)
    said = network.healthy("dask-worker")
    assert said.returncode == 1
    assert said.stderr.startswith("http://127.0.0.1:8790/health: ")
