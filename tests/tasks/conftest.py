"""What the tests of all tasks share."""

import pytest


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for the data and runs of one test file."""
    return tmp_path_factory.mktemp("task")
