"""Other programs beside ours, each in a folder of its own, and the command that finds one."""

import os
import pathlib
import sys

import pytest

from tests import tiny
from tests.processes import command

PEERS = pathlib.Path(sys.prefix) / "peers"


def peer_path(peer):
    """PYTHONPATH with a program of another version; without it, the test is skipped."""
    if not (PEERS / peer).is_dir():
        pytest.skip(f"{peer} is not beside the other peers; launch/install.sh torch puts it there")
    return os.pathsep.join([str(tiny.TOP), str(PEERS / peer)])


def convert(*arguments, peer=None):
    environment = dict(os.environ)
    if peer:
        environment["PYTHONPATH"] = peer_path(peer)
    environment |= {"HF_HUB_OFFLINE": "1"}
    return command("vlbeit_jax.convert", *arguments, environment=environment, timeout=600)
