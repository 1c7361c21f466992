"""Golden inputs, unpacked once."""

import pathlib
import tarfile

import pytest

GOLDEN = pathlib.Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden(tmp_path_factory):
    """The folder of the golden inputs; see its README."""
    folder = tmp_path_factory.mktemp("golden")
    with tarfile.open(GOLDEN / "inputs.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder
