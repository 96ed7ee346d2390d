"""An S3 server of moto's on loopback, which counts what is asked of it; and the writers of every format."""

import sys
from pathlib import Path

import boto3
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "io"))

from object_server import BUCKET, ObjectServer

from lazypipe.stores.filesystems import FILE_SYSTEMS


@pytest.fixture(scope="session")
def object_server():
    with ObjectServer() as server:
        yield server


@pytest.fixture
def s3(object_server, monkeypatch):
    """The server, empty but for a bucket, and the environment that leads to it."""
    environment = {
        "AWS_ENDPOINT_URL": object_server.url, "AWS_ACCESS_KEY_ID": "an-access-key",
        "AWS_SECRET_ACCESS_KEY": "a-very-secret-key", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/nowhere", "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
    }  # fmt: skip
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if object_server.client is None:
        FILE_SYSTEMS.forget()
        object_server.client = boto3.client("s3")
        object_server.client.create_bucket(Bucket=BUCKET)
    object_server.forget()
    yield object_server
    object_server.empty()
