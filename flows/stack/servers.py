"""The servers of a stack: what is run, with which environment, where it listens, how it is asked whether it answers."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from flows.stack import answering, postgres, registering
from flows.stack.clocks import ahead_at
from flows.stack.config import StackConfig
from flows.stack.processes import LOGS
from lazypipe.errors import ConfigError
from lazypipe.sizes import MIB, parse_bytes

DASK_CONFIG = registering.ROOT / "conf" / "dask.yaml"
# Of MLflow's processes: by default one that is silent for 5 s, as on a busy machine, is ended and started again.
PATIENT = "--timeout-worker-healthcheck 120"
OURS = ("PREFECT_API_URL", "PREFECT_HOME", "PREFECT_PROFILE", "PREFECT_API_DATABASE_CONNECTION_URL", "MLFLOW_RUN_ID")

# What MLflow has for language models is off: its queue of evaluations, in processes of its own; its gateway, which
# keeps keys; and its assistant, which lets a page run commands on this machine, or in a sandbox: for that is no image.
NO_LANGUAGE_MODELS = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ENABLE_AI_GATEWAY": "false",
    "MLFLOW_ENABLE_ASSISTANT_SANDBOX": "true",
}


@dataclass(frozen=True)
class Server:
    """One process to start; ``answers`` raises OSError while it does not answer."""

    name: str
    kind: str  # the name by which it is started alone
    command: tuple[str, ...]
    address: str
    answers: Callable[[float], None]  # given when the process was started
    env: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)  # by the option that sets each
    needs: tuple[str, ...] = ()  # names of servers that must answer before
    page: str = ""
    stop: int = signal.SIGTERM
    user: str | None = None
    ahead: Callable[[], float] = lambda: 0.0  # seconds by which its clock is ahead of ours
    prepare: Callable[[], None] = lambda: None  # before it is started
    first: tuple[tuple[str, ...], ...] = ()  # what ``prepare``, and what it needs, come to as commands
    settle: Callable[[], None] = lambda: None  # once it answers; done again after an OSError


def environment(config: StackConfig) -> dict[str, str]:
    """What every process of the stack finds in its environment."""
    env = {name: value for name, value in os.environ.items() if name not in OURS}
    direct = [name for name in env.get("NO_PROXY", env.get("no_proxy", "")).split(",") if name]
    env["NO_PROXY"] = env["no_proxy"] = ",".join(dict.fromkeys([*direct, "127.0.0.1", "localhost", config.here]))
    env |= shown(config)
    if DASK_CONFIG.exists():
        env["DASK_CONFIG"] = str(DASK_CONFIG)
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", "")])
    return env


def shown(config: StackConfig) -> dict[str, str]:
    """What a shell needs too, to use the stack."""
    return {
        "PREFECT_API_URL": config.prefect_api,
        "PREFECT_HOME": str(config.place / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "MLFLOW_TRACKING_URI": config.mlflow_uri,
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def servers(config: StackConfig) -> list[Server]:
    """Every server of the stack, those that others need first."""
    database = postgres.chosen(config).kind
    first = [database_server(config)] if database == "postgres" else []
    found = [*first, *prefect(config, database), mlflow(config, database), *dask(config)]
    return [*found, *spark(config)] if config.spark else found


def database_server(config: StackConfig) -> Server:
    """PostgreSQL on a socket in the folder, and on no port."""
    return Server(
        name="postgres",
        kind="postgres",
        command=postgres.command(config),
        address=str(postgres.sockets(config)),
        answers=lambda _: postgres.answers(config),
        ahead=partial(postgres.ahead, config),
        stop=postgres.STOP,
        user=postgres.user(),
        prepare=partial(postgres.prepare, config),
        first=(("mkdir", "-p", str(postgres.sockets(config))), postgres.making(config, postgres.data(config))),
        settle=partial(postgres.make_databases, config),
    )


def prefect(config: StackConfig, database: str) -> list[Server]:
    """Prefect's server, and a worker that carries out its flow runs."""
    env = environment(config)
    program = (sys.executable, "-m", "prefect")
    listening = ("--host", config.host, "--port", str(config.ports.prefect))
    own = {"PREFECT_API_DATABASE_CONNECTION_URL": postgres.prefect_uri(config)} if database == "postgres" else {}
    server = Server(
        name="prefect",
        kind="prefect",
        command=(*program, "server", "start", *listening),
        address=config.prefect_api,
        page=f"http://{config.here}:{config.ports.prefect}",
        answers=lambda _: answering.prefect(config.prefect_api),
        ahead=partial(ahead_at, f"{config.prefect_api}/health"),
        env=env | own,
        ports={"ports.prefect": config.ports.prefect},
        needs=("postgres",),
        settle=partial(registering.register, config),
        first=(postgres.creating(config, "prefect"),) if database == "postgres" else (),
    )
    name = f"{config.pool}-worker"
    pool = ("--pool", config.pool, "--name", name, "--limit", str(config.flow_runs))
    worker = Server(
        name="worker",
        kind="worker",
        command=(*program, "worker", "start", *pool, "--type", "process"),
        address=f"work pool {config.pool}",
        page=f"{server.page}/work-pools/work-pool/{config.pool}",
        answers=lambda started: answering.prefect_worker(config.prefect_api, config.pool, name, started),
        first=(
            (*program, "work-pool", "create", config.pool, "--type", "process"),
            (*program, *registering.MAKE_GPU_LIMIT),
            (sys.executable, "-m", registering.DEPLOY),
        ),
        env=env,
        needs=("prefect",),
    )
    return [server, worker]


def mlflow(config: StackConfig, database: str) -> Server:
    """MLflow's server, through which artifacts go too."""
    folder = config.place / "mlflow"
    store = postgres.mlflow_uri(config) if database == "postgres" else f"sqlite:///{folder / 'mlflow.db'}"
    hosts = [*config.allowed_hosts, f"{config.here}:{config.ports.mlflow}", f"localhost:{config.ports.mlflow}"]
    return Server(
        name="mlflow",
        kind="mlflow",
        command=(
            *(sys.executable, "-m", "mlflow", "server"),
            *("--host", config.host, "--port", str(config.ports.mlflow), "--workers", str(config.mlflow_processes)),
            *("--backend-store-uri", store, "--serve-artifacts"),
            *("--artifacts-destination", str(folder / "artifacts"), "--allowed-hosts", ",".join(hosts)),
            *("--uvicorn-opts", PATIENT),
        ),
        address=config.mlflow_uri,
        page=config.mlflow_uri,
        answers=lambda _: answering.mlflow(config.mlflow_uri),
        ahead=partial(ahead_at, f"{config.mlflow_uri}/health"),
        env=environment(config) | NO_LANGUAGE_MODELS,
        ports={"ports.mlflow": config.ports.mlflow},
        needs=("postgres",),
        prepare=lambda: folder.mkdir(exist_ok=True),
        first=(
            *((postgres.creating(config, "mlflow"),) if database == "postgres" else ()),
            ("mkdir", "-p", str(folder)),
        ),
    )


def dask(config: StackConfig) -> list[Server]:
    """A Dask scheduler and its workers; the last ones carry the resource GPU."""
    env = environment(config)
    program = (sys.executable, "-m", "dask")
    host = ("--host", config.host)
    page = f"{config.here}:{config.ports.dask_page}"
    at = ("--port", str(config.ports.dask), "--dashboard-address", f"{config.host}:{config.ports.dask_page}")
    found = [
        Server(
            name="dask-scheduler",
            kind="dask",
            command=(*program, "scheduler", *host, *at),
            address=config.dask_address,
            page=f"http://{page}/status",
            answers=lambda _: answering.dask_scheduler(config.dask_address),
            env=env,
            ports={"ports.dask": config.ports.dask, "ports.dask_page": config.ports.dask_page},
        )
    ]
    cluster = config.dask
    for number in range(1, cluster.workers + 1):
        name = f"dask-worker-{number}"
        gpu = number > cluster.workers - cluster.gpu_workers
        size = ("--nthreads", str(cluster.threads), "--memory-limit", cluster.memory)
        found.append(
            Server(
                name=name,
                kind="dask",
                command=(
                    *(*program, "worker", config.dask_address, *host, "--name", name, *size),
                    *("--dashboard-address", f"{config.host}:0", "--local-directory", str(config.place / "dask")),
                    *(("--resources", "GPU=1") if gpu else ()),
                ),
                address="resource GPU=1" if gpu else "",
                answers=lambda _, name=name: answering.dask_worker(config.dask_address, name),  # type: ignore[misc]
                env=env,
                needs=("dask-scheduler",),
            )
        )
    return found


def spark(config: StackConfig) -> list[Server]:
    """A Spark standalone master and its workers."""
    program = spark_class()
    env = environment(config) | {"SPARK_LOCAL_IP": config.host, "SPARK_LOG_DIR": str(config.place / LOGS)}
    ports, cluster = config.ports, config.spark_workers
    page = f"http://{config.here}:{ports.spark_page}"
    name = "org.apache.spark.deploy"
    found = [
        Server(
            name="spark-master",
            kind="spark",
            command=(
                *(program, f"{name}.master.Master", "--host", config.host, "--port", str(ports.spark)),
                *("--webui-port", str(ports.spark_page)),
            ),
            address=config.spark_address,
            page=page,
            answers=lambda _: answering.spark_master(page),
            env=env,
            ports={"ports.spark": ports.spark, "ports.spark_page": ports.spark_page},
        )
    ]
    megabytes = parse_bytes(cluster.memory) // MIB
    for number in range(1, cluster.workers + 1):
        port = ports.spark_page + number
        found.append(
            Server(
                name=f"spark-worker-{number}",
                kind="spark",
                command=(
                    *(program, f"{name}.worker.Worker", "--host", config.host, "--webui-port", str(port)),
                    *("--cores", str(cluster.cores), "--memory", f"{megabytes}m"),
                    *("--work-dir", str(config.place / "spark"), config.spark_address),
                ),
                address="",
                page=f"http://{config.here}:{port}",
                answers=lambda _, port=port: answering.spark_worker(page, port),  # type: ignore[misc]
                env=env,
                ports={f"ports.spark_page + {number}": port},
                needs=("spark-master",),
            )
        )
    return found


def spark_class() -> str:
    """Spark's launcher, of this environment; ConfigError where it or Java is missing."""
    beside = Path(sys.executable).with_name("spark-class")
    found = str(beside) if beside.exists() else shutil.which("spark-class")
    if found is None:
        raise ConfigError("spark-class: not found. Install pyspark, or leave --spark out.")
    if shutil.which("java") is None and not os.environ.get("JAVA_HOME"):
        raise ConfigError("java: not found, and Spark needs version 17 or 21. Install it, or leave --spark out.")
    return found
