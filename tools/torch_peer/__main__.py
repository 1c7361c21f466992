"""Command: times our train step and PyTorch's in turn."""

import importlib.util
import json
import os
import sys

from absl import flags
from ml_collections import config_flags

from vlbeit_jax import cli
from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import place, require_writable
from vlbeit_jax.tasks.new_run import parse_run

OVERVIEW = r"""Times the train step of a configuration in JAX and in PyTorch, and compares the two.

  python -m tools.torch_peer --config=configs/sample.py --config.task.schedule=image+text+pair
  python -m tools.torch_peer --config=configs/sample.py --config.task.schedule=pair \
      --peer=torch-compiled --steps=50 --json=speed.json

Both sides start from the same random weights and take turns on the same random batches. The command
prints times, rates and the ratio of each pair as JSON. It exits with code 1 if a loss or the
gradient norm of the first step differs. --peer=torch runs PyTorch as users usually do: compiled on
a GPU, eager on a CPU. --peer=torch-compiled and --peer=torch-eager choose one of the two."""

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "configuration file; --config.x.y=z overrides a field", lock_config=True
)
PEER = flags.DEFINE_enum(
    "peer",
    "torch",
    ["torch", "torch-eager", "torch-compiled"],
    "how PyTorch runs; torch: compiled on a GPU, eager on a CPU",
)
STEPS = flags.DEFINE_integer("steps", 20, "timed steps", lower_bound=2)
WARMUP = flags.DEFINE_integer("warmup", 3, "untimed steps before the timed ones", lower_bound=1)
JSON = flags.DEFINE_string("json", "", "file that gets the result")
flags.mark_flag_as_required("config")


def main() -> None:
    """Compares the two sides, prints the result, and exits with code 1 if they disagree."""
    config = parse_run(cli.config_values(CONFIG), to_train=False)
    if JSON.value:
        require_writable(place(JSON.value, "--json"))
    if "," in config.task.schedule:
        raise UsageError(
            f"task.schedule={config.task.schedule} has steps of several kinds. Choose one, e.g. "
            "--config.task.schedule=image+text+pair"
        )
    if importlib.util.find_spec("torch") is None:
        raise UsageError(
            "PyTorch is not installed: python -m pip install 'vlbeit-jax[torch]' installs it"
        )
    # By default JAX reserves three quarters of a GPU's memory and leaves PyTorch only the rest. JAX
    # reads this variable when it is first asked for devices.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    from tools.torch_peer.compare import compare

    with cli.explains_full_memory():
        result = compare(config, PEER.value, STEPS.value, WARMUP.value)
    text = json.dumps(result, indent=1)
    print(text)
    if JSON.value:
        place(JSON.value, "--json").write_text(text + "\n")
    if not result["agrees"]:
        sys.exit(
            f"error: the first step of the two sides differs by more than {result['limit']}: "
            f"{result['first_step']}"
        )


if __name__ == "__main__":
    cli.run(main, OVERVIEW)
