"""The images and the compose files, as far as they can be held to something without building them."""

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler
from itertools import chain
from pathlib import Path

import pytest
import yaml
from web_servers import answering

from flows import _alerts

ROOT = Path(__file__).resolve().parents[1]
DOCKER = ROOT / "docker"
BIN = Path(sys.executable).parent
COMPOSE = [DOCKER / "compose.yaml", DOCKER / "compose.s3.yaml"]
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
EXAMPLE = (DOCKER / ".env.example").read_text()
ENDS_BY_ITSELF = {"bucket", "deploy", "jobs"}
SECRETS = re.compile("PASSWORD|SECRET|TOKEN|_KEY|ROOT_USER|WEBHOOK")
STORE = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"}
READERS = {"prefect-worker", "jobs", "dask-worker", "dask-gpu-worker", "spark-worker"}  # of what is at s3://


def stages():
    """The lines of each stage of the Dockerfile, by name, each instruction on a line; and what it is made from."""
    text = re.sub(r"\\\n(\s*#.*\n)*", " ", DOCKERFILE)
    found, base = {}, {}
    for line in text.splitlines():
        if start := re.match(r"FROM (\S+) AS (\S+)", line):
            base[start[2]], lines = start[1], found.setdefault(start[2], [])
        elif found and line.strip() and not line.startswith("#"):
            lines.append(" ".join(line.split()))
    return found, base


def whole(stage):
    """All instructions of a stage, those of the stages that it is made from first."""
    found, base = stages()
    return [*(whole(base[stage]) if base[stage] in found else []), *found[stage]]


def services(*files):
    """The services of compose files, the later ones laid over the earlier, as compose does."""
    merged = {}
    for file in files:
        for name, service in yaml.safe_load(file.read_text())["services"].items():
            into = merged.setdefault(name, {})
            for key, value in service.items():
                into[key] = into[key] | value if isinstance(value, dict) and key in into else value
    return merged


ALL = services(*COMPOSE)
OURS = {name: service for name, service in ALL.items() if "build" in service}


def command_of(service):
    command = [*service.get("entrypoint", []), *(words(service.get("command", [])))]
    return [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", word) for word in command]


def words(command):
    return shlex.split(command) if isinstance(command, str) else command


def test_hadolint_finds_nothing_in_the_dockerfile():
    done = subprocess.run(
        [BIN / "hadolint", "--failure-threshold", "style", DOCKER / "Dockerfile"], check=False, capture_output=True
    )
    assert done.returncode == 0, done.stdout.decode()


@pytest.mark.parametrize("file", COMPOSE, ids=lambda file: file.name)
def test_compose_files_keep_to_the_schema(file):
    check = [BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", file]
    done = subprocess.run(check, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("target", ["driver", "worker", "gpu-worker"])
def test_an_image_has_no_root_a_health_check_and_the_locked_versions(target):
    lines = whole(target)
    assert [line for line in lines if line.startswith("USER")][-1] == "USER 1000"
    assert any(line.startswith("HEALTHCHECK") and "docker/healthy.py" in line for line in lines)
    environment = next(re.search(r"--from=(\S+) /opt/venv", line)[1] for line in lines if "/opt/venv /opt/venv" in line)
    installed = whole(environment)
    assert "COPY constraints.txt pyproject.toml ./" in installed
    assert any("PIP_CONSTRAINT=/opt/lazypipe/constraints.txt" in line for line in installed)
    assert not any("pip install" in line for line in lines), "an image that people run holds no pip cache nor settings"


def test_the_base_is_pinned_by_a_digest():
    (base,) = re.findall(r"^ARG BASE=(\S+)", DOCKERFILE, re.MULTILINE)
    assert re.search(r":3\.\d+\.\d+-[\w-]+@sha256:[0-9a-f]{64}$", base)
    assert {of for of in stages()[1].values() if of not in stages()[1]} == {"${BASE}"}


def test_extras_that_are_installed_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = re.findall(r"^ARG EXTRAS=(\S+)", DOCKERFILE, re.MULTILINE) + re.findall(r'"\.\[([\w,]+)\]"', DOCKERFILE)
    assert asked == ["neuro,postgres,s3,spark", "nets"]
    assert {extra for names in asked for extra in names.split(",")} <= set(extras)
    assert re.search("^boto3==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)


def test_what_is_copied_is_there_and_goes_to_the_build_and_no_secret_does():
    patterns = (ROOT / ".dockerignore").read_text().splitlines()
    kept = [pattern[1:] for pattern in patterns if pattern.startswith("!")]
    assert "*" in patterns  # all else is left out
    copied = [word for line in chain(*stages()[0].values()) if line.startswith("COPY") and "--from" not in line
              for word in line.split()[1:-1]]  # fmt: skip
    for path in copied:
        assert (ROOT / path).exists()
        assert path.removeprefix("./") in kept
    assert not any(fnmatch("docker/.env", pattern) or fnmatch("mlflow.db", pattern) for pattern in kept)
    assert ".env" in (DOCKER / ".gitignore").read_text().splitlines()


def test_nothing_secret_is_set_in_an_image():
    set_in_images = re.findall(r"(?:ENV|ARG|^|\s)([A-Z][A-Z0-9_]+)=", DOCKERFILE)
    assert "DASK_CONFIG" in set_in_images
    assert not [name for name in set_in_images if SECRETS.search(name) or (name.startswith("PIP_") and "URL" in name)]


def test_every_variable_of_the_compose_files_is_in_the_example():
    used = {name for file in COMPOSE for name in re.findall(r"\$\{(\w+)", file.read_text())}
    told = set(re.findall(r"^#?([A-Z_]+)=", EXAMPLE, re.MULTILINE))
    assert used == told


def test_defaults_are_those_that_the_example_tells():
    for file in COMPOSE:
        for name, default in re.findall(r"\$\{(\w+):-([^}]*)\}", file.read_text()):
            assert f"#{name}={default}\n" in EXAMPLE


def test_a_password_that_is_needed_has_no_default_and_without_one_nothing_starts():
    text = "".join(file.read_text() for file in COMPOSE)
    secrets = {name for name in re.findall(r"\$\{(\w+)", text) if SECRETS.search(name)}
    needed = {"POSTGRES_PASSWORD", "MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"}
    assert secrets - needed == {
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "LAZYPIPE_ALERT_WEBHOOK")
    }
    for name in needed:
        assert set(re.findall(rf"\$\{{{name}(.{{0,2}})", text)) == {":?"}
        assert re.search(rf"^{name}=$", EXAMPLE, re.MULTILINE)
    for name in secrets - needed:
        assert set(re.findall(rf"\$\{{{name}([^}}]*)", text)) == {":-"}
    for name, service in ALL.items():
        assert not SECRETS.search(" ".join(map(str, command_of(service)))), f"{name}: ps shows what it is called with"


def test_keys_of_a_store_go_to_all_that_read_and_write_there_and_to_mlflow():
    given = services(COMPOSE[0])
    for name, service in given.items():
        has = STORE & set(service.get("environment", {}))
        assert has == (STORE if name in READERS | {"mlflow"} else set()), name
        assert all(service["environment"][key].startswith(f"${{{key}:-") for key in has)
    assert given["mlflow"]["environment"]["MLFLOW_ARTIFACTS_DESTINATION"] == (
        "${MLFLOW_ARTIFACTS_DESTINATION:-/artifacts}"
    )


def test_with_minio_the_keys_of_mlflow_are_those_of_minio_alone():
    environment = ALL["mlflow"]["environment"]
    assert environment["AWS_ACCESS_KEY_ID"].startswith("${MINIO_ROOT_USER:?")
    assert environment["AWS_SECRET_ACCESS_KEY"].startswith("${MINIO_ROOT_PASSWORD:?")
    assert environment["AWS_SESSION_TOKEN"] == ""
    assert environment["MLFLOW_S3_ENDPOINT_URL"] == "http://minio:9000"  # goes before AWS_ENDPOINT_URL
    assert set(ALL["bucket"]["environment"]) < set(environment)


def test_who_runs_flows_knows_whom_to_tell_when_one_fails():
    for name in (_alerts.WEBHOOK, _alerts.COMMAND):
        told = {one for one, service in ALL.items() if name in service.get("environment", {})}
        assert told == {"prefect-worker"}
        assert ALL["prefect-worker"]["environment"][name] == f"${{{name}:-}}"


def test_nothing_is_published_beyond_this_machine():
    published = [port for service in ALL.values() for port in service.get("ports", [])]
    assert len(published) >= 5
    assert all(port.startswith("127.0.0.1:") for port in published)
    assert not any(service.get("network_mode") == "host" for service in ALL.values())
    inside = [port.rpartition(":")[2] for port in published]
    assert not {"8786", "7077"} & set(inside), "whoever reaches a scheduler runs what they like"


@pytest.mark.parametrize("name", ALL)
def test_a_service_is_built_here_or_pinned_by_a_digest(name):
    service = ALL[name]
    if "build" not in service:
        assert re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", service["image"])
        return
    build = service["build"]
    assert (DOCKER / build["context"]).resolve() == ROOT
    assert ROOT / build["dockerfile"] == DOCKER / "Dockerfile"
    assert build["target"] in stages()[0]
    assert service["image"] == f"lazypipe-{build['target']}:${{LAZYPIPE_TAG:-local}}"
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", ALL)
def test_a_service_that_stays_says_whether_it_is_healthy(name):
    service = ALL[name]
    if "build" not in service:
        assert service["healthcheck"]["test"]
        return
    places = service.get("environment", {}).get("HEALTHY", "").split()
    assert bool(places) != (name in ENDS_BY_ITSELF)
    options = " ".join(command_of(service))
    serving = set(re.findall(r"--(?:port|webui-port|dashboard-address) :?(\d+)", options))
    serving |= {str(value) for key, value in service["environment"].items() if key.endswith("_PORT")}
    for place in places:
        assert re.fullmatch(r"(?:http|tcp)://127\.0\.0\.1:(\d+)\S*", place)[1] in serving
    for port in service.get("ports", []):
        assert port.rpartition(":")[2] in serving


@pytest.mark.parametrize("name", ALL)
def test_a_service_waits_for_services_that_there_are(name):
    for other, what in ALL[name].get("depends_on", {}).items():
        ends = what["condition"] == "service_completed_successfully"
        assert ends == (other in ENDS_BY_ITSELF)
        assert ALL[other].get("profiles", []) in ([], ALL[name].get("profiles", []))


@pytest.mark.parametrize("name", OURS)
def test_a_service_calls_what_its_image_holds(name):
    program, *arguments = command_of(OURS[name])
    target = OURS[name]["build"]["target"]
    copied = " ".join(line for line in whole(target) if line.startswith("COPY"))
    if program == "python3":
        if arguments[0] == "-m":
            assert importlib.util.find_spec(arguments[1]), f"python -m {arguments[1]}"
            assert f"./{arguments[1].split('.')[0]}" in copied
        else:
            compile(arguments[1], name, "exec")
    else:
        assert (BIN / program).exists()
    if program == "spark-class":
        assert "openjdk" in " ".join(whole(target))
    for host in re.findall(r"(?:tcp|spark|https?)://([a-z][\w-]*)", " ".join(arguments)):
        assert host in ALL


def test_addresses_name_services_and_their_ports():
    for service in OURS.values():
        for value in service.get("environment", {}).values():
            for host, port in re.findall(r"://(?:\w+@)?([a-z][\w-]*):(\d+)", str(value)):
                other = ALL[host]
                serving = " ".join([*command_of(other), *map(str, other.get("environment", {}).values())])
                assert port in serving or (host, port) == ("postgres", "5432")


def test_folders_are_those_of_prefect_yaml_and_belong_to_the_user():
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    relative = {value.split("/")[0] for one in deployments for value in one["parameters"]["config"].values()
                if isinstance(value, str) and "/" in value and "://" not in value}  # fmt: skip
    mounted = {volume.removesuffix(":ro").rpartition(":")[2] for volume in OURS["prefect-worker"]["volumes"]}
    made = next(line for line in whole("driver") if "useradd" in line)
    for folder in relative - {"incoming"}:
        assert folder in ("data", "results", "states")
        assert f"/opt/lazypipe/{folder}" in mounted
        assert f" {folder}" in made
    for name in ("dask-worker", "dask-gpu-worker", "spark-worker", "jobs", "deploy"):
        assert set(OURS[name]["volumes"]) == set(OURS["prefect-worker"]["volumes"]), "one path means one file"


def test_prefects_variables_are_settings_that_it_has():
    from prefect.settings.legacy import _get_settings_fields
    from prefect.settings.models.root import Settings

    known = set(_get_settings_fields(Settings)) | {"PREFECT_UI_STATIC_DIRECTORY"}
    used = {key for service in OURS.values() for key in service.get("environment", {}) if key.startswith("PREFECT_")}
    used |= set(re.findall(r"(PREFECT_\w+)=", DOCKERFILE))
    assert len(used) > 8
    assert used <= known, used - known


def test_the_page_names_every_service_and_its_ports():
    page = (DOCKER / "README.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    for name, service in ALL.items():
        row = next(line for line in rows if f"`{name}`" in line.split("|")[1])
        for port in service.get("ports", []):
            assert port.rpartition(":")[2] in row
        for profile in set(service.get("profiles", [])) - {"jobs"}:
            assert f"profile `{profile}`" in row
    for file in re.findall(r"-f (docker/\S+\.yaml)", page):
        assert (ROOT / file).exists()


def test_dasks_settings_are_those_of_the_project():
    (file,) = re.findall(r"DASK_CONFIG=/opt/lazypipe/(\S+)", DOCKERFILE)
    assert (ROOT / file).exists()
    for target in ("worker", "gpu-worker", "driver"):
        assert "COPY conf ./conf" in whole(target)


def engine(folder, name, status=0):
    """A container engine that writes down how it is called."""
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f'#!/bin/sh\n[ "$1" = version ] && exit {status}\necho {name} "$@" >> {folder}/calls\n')
    program.chmod(0o755)


def build(folder, *arguments, **variables):
    """docker/build, in a checkout of its own, with no engine but those in ``folder``."""
    place = folder / "checkout" / "docker"
    place.mkdir(parents=True, exist_ok=True)
    shutil.copy(DOCKER / "build", place)
    for program in ("bash", "sed", "dirname", "basename", "realpath", "env"):
        if not (folder / program).exists():
            (folder / program).symlink_to(f"/usr/bin/{program}")
    environment = {key: value for key, value in os.environ.items() if key not in ("ENGINE", "LAZYPIPE_TAG")}
    done = subprocess.run(
        [place / "build", *map(str, arguments)],
        check=False,
        env=environment | {"PATH": str(folder)} | variables,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
    )
    calls = (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []
    return done, [shlex.split(call) for call in calls]


def test_build_takes_docker_and_says_so(tmp_path):
    engine(tmp_path, "docker")
    engine(tmp_path, "podman")
    done, calls = build(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[0] == "docker/build: lazypipe-worker:local with docker"
    assert [call[call.index("--target") + 1] for call in calls] == ["worker", "driver"]


@pytest.mark.parametrize(
    ("file", "variables", "options", "tag"),
    [
        ("", {}, (), "local"),
        ("LAZYPIPE_TAG=\n", {}, (), "local"),
        ("POSTGRES_PASSWORD=x\n#LAZYPIPE_TAG=a\nLAZYPIPE_TAG=b\nLAZYPIPE_TAG='c'  # ours\n", {}, (), "c"),
        ("LAZYPIPE_TAG=c", {"LAZYPIPE_TAG": "d"}, (), "d"),
        ("LAZYPIPE_TAG=c", {"LAZYPIPE_TAG": "d"}, ("--tag", "e"), "e"),
    ],
    ids=["nothing", "empty", "docker/.env", "variable", "option"],
)
def test_build_tags_images_as_compose_calls_them(tmp_path, file, variables, options, tag):
    engine(tmp_path, "docker")
    (tmp_path / "checkout" / "docker").mkdir(parents=True)
    (tmp_path / "checkout" / "docker" / ".env").write_text(file)
    done, (call,) = build(tmp_path, *options, "worker", **variables)
    assert done.returncode == 0, done.stderr
    assert call[call.index("--tag") + 1] == f"lazypipe-worker:{tag}"
    if not options:  # which compose has not
        given = {name: value.strip("'") for name, value in re.findall(r"^(\w+)=(\S*)", file, re.MULTILINE)} | variables
        image = services(COMPOSE[0])["dask-worker"]["image"]
        tags = re.sub(r"\$\{(\w+):-(\w+)\}", lambda found: given.get(found[1]) or found[2], image)
        assert tags == f"lazypipe-worker:{tag}"


def test_build_says_how_it_is_called(tmp_path):
    done, calls = build(tmp_path, "--help")
    assert done.returncode == 0 and "$LAZYPIPE_TAG" in done.stdout and not calls and not done.stderr


def test_build_takes_podman_where_docker_does_not_run(tmp_path):
    engine(tmp_path, "docker", status=1)
    engine(tmp_path, "podman")
    (tmp_path / "pip.conf").write_text("[global]\n")
    options = (
        "--base",
        "mirror/python:3.12",
        "--pip-config",
        "pip.conf",
        "--tag",
        "x",
        "gpu-worker",
        "--",
        "--pull=never",
    )
    done, (call,) = build(tmp_path, *options)
    assert done.returncode == 0, done.stderr
    assert call[0] == "podman"
    assert {"docker", "BASE=mirror/python:3.12", f"id=pip,src={tmp_path}/pip.conf", "--pull=never"} <= set(call)
    assert "lazypipe-gpu-worker:x" in call


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "neither docker nor podman runs here. Install or start one, or name its program in $ENGINE."),
        (("everything",), "everything: neither a target (driver, worker, gpu-worker) nor an option."),
        (("--base",), "--base: no value."),
        (("--pip-config", "/no/such"), "/no/such: no such file. Name a pip.conf that you can read."),
    ],
)
def test_build_refuses_in_one_line(tmp_path, arguments, told):
    done, calls = build(tmp_path, *arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert told in done.stderr
    assert not calls


def healthy(places):
    environment = os.environ | {"HEALTHY": places}
    return subprocess.run(
        [sys.executable, "-S", DOCKER / "healthy.py"],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        timeout=20,
    )


def test_healthy_tells_what_does_not_answer():
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/health" else 503)
            self.end_headers()

    with answering(Handler) as address:
        place = address.removeprefix("http://")
        assert healthy("").returncode == 0
        assert healthy(f"tcp://{place} http://{place}/health").returncode == 0
        sick = healthy(f"tcp://{place} http://{place}/other")
        assert (sick.returncode, sick.stderr) == (1, f"http://{place}/other: HTTP Error 503: Service Unavailable\n")
    gone = healthy(f"tcp://{place}")
    assert gone.returncode == 1
    assert gone.stderr.startswith(f"tcp://{place}: ")
    assert gone.stderr.count("\n") == 1
