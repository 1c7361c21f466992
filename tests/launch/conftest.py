"""The fixtures that several launch tests share."""

import pytest

from tests.launch.checkouts import Checkout
from tests.launch.stand_ins import Cloud


@pytest.fixture
def cloud(tmp_path):
    """Stand-ins that are first on PATH."""
    return Cloud(tmp_path)


@pytest.fixture
def checkout(tmp_path):
    """What launch/install.sh reads, in a folder of its own."""
    return Checkout(tmp_path)
