"""Other programs beside ours, each in a folder of its own, and the command that finds one."""

import os
import pathlib
import sys

from tests import tiny
from tests.processes import command

PEERS = pathlib.Path(sys.prefix) / "peers"


def convert(*arguments, peer=None):
    environment = dict(os.environ)
    if peer:
        environment["PYTHONPATH"] = os.pathsep.join([str(tiny.TOP), str(PEERS / peer)])
    environment |= {"HF_HUB_OFFLINE": "1"}
    return command("vlbeit_jax.convert", *arguments, environment=environment, timeout=600)
