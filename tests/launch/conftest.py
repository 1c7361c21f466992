"""The fixture that launch tests of clusters share."""

import pytest

from tests.launch.stand_ins import Cloud


@pytest.fixture
def cloud(tmp_path):
    """Stand-ins that are first on PATH."""
    return Cloud(tmp_path)
