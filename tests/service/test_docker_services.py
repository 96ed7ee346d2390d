"""The services of docker/compose.yaml, run as they are written, where no container engine is.

Each has a network namespace to itself, with its name in /etc/hosts, and the command, environment and health check that
the compose files give it; a user of its own it has only with $LAZYPIPE_ROOTFS, the unpacked files of an image of the
driver, which are then run instead of this environment's. PostgreSQL is this machine's, MinIO's place is taken by moto.
"""

import contextlib
import io
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

import boto3
import httpx
import numpy as np
import pytest
import yaml
from prefect_server import ENDED, ROOT, link_project
from processes import Processes, ready, wait_until
from service.clusters import BIN, needs_java
from web_servers import webhook

import lazypipe as lp

DOCKER = ROOT / "docker"
ROOTFS = os.environ.get("LAZYPIPE_ROOTFS")
POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)), None)
PREFIX = "lpc"  # of the namespaces
PASSWORD = "it's a p@ss/word: 100%"
SECRET = "minio-secret-key"
HERE = "10.77.0.1"  # where the services find this test
VALUES = {
    "POSTGRES_PASSWORD": PASSWORD,
    "MINIO_ROOT_USER": "minio-user",
    "MINIO_ROOT_PASSWORD": SECRET,
    "AWS_ACCESS_KEY_ID": "who-has-data",
    "AWS_SECRET_ACCESS_KEY": "a-key-to-data",
    "AWS_ENDPOINT_URL": "http://minio:9000",
}
START_SECONDS = 300
# In the files of an image, as its user, with the hosts of the namespace.
ENTER = (
    f'mount --bind /etc/hosts {ROOTFS}/etc/hosts && exec chroot --userspec=1000:1000 {ROOTFS} env -C /opt/lazypipe "$@"'
)
INSIDE = ("sh", "-c", ENTER, "enter") if ROOTFS else ()

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("ip"), reason="network namespaces need root and ip"),
    pytest.mark.skipif(POSTGRES is None, reason="no PostgreSQL here"),
    needs_java,
]


def services(values):
    """What compose makes of its files: those of compose.s3.yaml laid over, variables filled in."""
    merged = {}
    for name in ("compose.yaml", "compose.s3.yaml"):
        for service, given in yaml.safe_load((DOCKER / name).read_text())["services"].items():
            into = merged.setdefault(service, {})
            for key, value in given.items():
                into[key] = into[key] | value if isinstance(value, dict) and key in into else value
    return filled(merged, values)


def filled(value, values):
    if isinstance(value, dict):
        return {key: filled(one, values) for key, one in value.items()}
    if isinstance(value, list):
        return [filled(one, values) for one in value]
    if not isinstance(value, str):
        return value
    return re.sub(r"\$\{(\w+)(?::[-?]([^}]*))?\}", lambda found: values.get(found[1], found[2]), value)


def image_environment():
    """What the Dockerfile sets for all images."""
    text = (DOCKER / "Dockerfile").read_text().replace("\\\n", " ")
    block = next(line for line in text.splitlines() if line.startswith("ENV PATH") and "PYSPARK_PYTHON" in line)
    return dict(word.split("=", 1) for word in shlex.split(block.removeprefix("ENV ")))


class Network:
    """A bridge with a namespace for each service, which ``start`` fills."""

    def __init__(self, folder):
        self.folder, self.services, self.processes = folder, services(VALUES), {}
        self.group = Processes(folder, grace=20)
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
        ip("address", "add", f"{HERE}/24", "dev", f"{PREFIX}-br")

    def __exit__(self, *_):
        try:
            self.group.__exit__()
        finally:
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
            self.processes[name] = self.group.start(*command, env=environment)

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
                log = self.said(name)[-2000:]
                assert self.processes[name].poll() is None, f"{name} has ended:\n{log}"
                assert time.monotonic() < deadline, f"{name} is not healthy: {said.stderr}\n{log}"
                time.sleep(1)

    def said(self, name):
        return self.processes[name].log.read_text(errors="replace")

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
        self.processes[name] = self.group.start("ip", "netns", "exec", f"{PREFIX}-{name}", *user, *server, cwd=data)
        psql = ["psql", "-h", self.hosts[name], "-U", given["POSTGRES_USER"], "-v", "ON_ERROR_STOP=1"]
        environment = os.environ | {"PGPASSWORD": given["POSTGRES_PASSWORD"]}
        first = [*psql, "-d", "postgres", "-c", f"CREATE DATABASE {given['POSTGRES_DB']}"]

        def made_one():
            return not subprocess.run(first, env=environment, capture_output=True, check=False, timeout=60).returncode

        ready(self.processes[name], made_one, 60)
        script = [*psql, "-d", given["POSTGRES_DB"], "-f", DOCKER / "mlflow.sql"]
        subprocess.run(script, env=environment, check=True, capture_output=True, timeout=30)

    def start_minio(self):
        """Start moto where MinIO would be: any keys do, but the names of buckets and objects are kept."""
        command = ["ip", "netns", "exec", f"{PREFIX}-minio", BIN / "moto_server", "-H", "0.0.0.0", "-p", "9000"]
        self.processes["minio"] = self.group.start(*command, env=os.environ)
        ready(self.processes["minio"], lambda: answers(self.at("minio", 9000)), 120)

    def store(self):
        """A client of it."""
        keys = {"aws_access_key_id": "anybody", "aws_secret_access_key": "does"}
        return boto3.client("s3", endpoint_url=self.at("minio", 9000), region_name="us-east-1", **keys)


def answers(url):
    try:
        return httpx.get(url, trust_env=False)
    except httpx.TransportError:
        return None


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=20)


def split(command):
    return shlex.split(command) if isinstance(command, str) else command


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compose")
    link_project(folder)
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
        network.store().create_bucket(Bucket="data")
        network.store().upload_file(str(data / "wide.npy"), "data", "wide.npy")
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
    keys = [one["Key"] for one in network.store().list_objects_v2(Bucket="mlflow")["Contents"]]
    assert [key for key in keys if key.endswith(f"{run}/artifacts/scree.png")]
    assert PASSWORD not in said
    for name in ("mlflow", "prefect"):
        assert "127.0.0.1" in network.said(name) or "0.0.0.0" in network.said(name)
        assert PASSWORD not in network.said(name)
        assert SECRET not in network.said(name)


def test_jobs_and_workers_of_dask_have_the_keys_of_the_store(network):
    network.run(
        *("jobs", "pca", "--source", "s3://data/wide.npy", "--n-components", "3", "--out", "s3://data/results/dask"),
        *("--engine.kind", "dask", "--engine.address", "tcp://dask-scheduler:8786", "--engine.memory", "64MiB"),
    )
    found = network.store().get_object(Bucket="data", Key="results/dask/components.npy")["Body"].read()
    assert np.array_equal(np.load(io.BytesIO(found)), read(network, "results/dask/components.npy"))


def test_the_bucket_is_made_once(network):
    network.run("bucket")
    assert len(re.findall('"PUT /mlflow/? HTTP', network.said("minio"))) == 1


def test_jobs_run_on_the_spark_cluster_with_the_same_bits(network):
    network.start("spark-master")
    network.wait_until_healthy("spark-master")
    network.start("spark-worker")
    network.wait_until_healthy("spark-worker")
    network.run(
        *("jobs", "pca", "--source", "s3://data/wide.npy", "--n-components", "3", "--out", "results/spark"),
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


def test_deployments_are_registered_and_a_run_completes_and_one_that_fails_is_told(network):
    with webhook(HERE) as (address, got, _):
        network.services = services(VALUES | {"LAZYPIPE_ALERT_WEBHOOK": address})
        network.run("deploy")
        network.start("prefect-worker")
        network.wait_until_healthy("prefect-worker")
        good, bad = ended(network, "s3://data/wide.npy"), ended(network, "data/missing.npy")
        assert good["state"]["type"] == "COMPLETED", good["state"]["message"]
        assert read(network, "results/flow-wide.npy/components.npy").shape == (3, 40)
        assert bad["state"]["type"] == "FAILED"
        wait_until(lambda: got, 120, "the alert")
    assert [(one["run"], "missing.npy: no such file" in one["error"]) for one in got] == [(bad["name"], True)]


def ended(network, source):
    """A run of the deployment of pca that has ended."""
    with httpx.Client(base_url=network.at("prefect", 4200) + "/api", timeout=30, trust_env=False) as api:
        deployment = api.get("/deployments/name/pca/pca").raise_for_status().json()
        config = {"source": source, "n_components": 3, "engine": {"memory": "64MiB"}}
        config["out"] = "results/flow-" + source.rpartition("/")[2]
        asked = {"parameters": {"config": config}, "state": {"type": "SCHEDULED"}}
        run = api.post(f"/deployments/{deployment['id']}/create_flow_run", json=asked).raise_for_status().json()

        def over():
            found = api.get(f"/flow_runs/{run['id']}").raise_for_status().json()
            return found if found["state"]["type"] in ENDED else None

        return wait_until(over, 400, "the run to end", pause=1)


def test_a_service_that_died_is_not_healthy(network):
    os.killpg(network.processes["dask-worker"].pid, signal.SIGKILL)
    network.processes["dask-worker"].wait(60)
    said = network.healthy("dask-worker")
    assert said.returncode == 1
    assert said.stderr.startswith("http://127.0.0.1:8790/health: ")
