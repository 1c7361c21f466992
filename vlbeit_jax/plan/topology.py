"""The grid of TPU chips that a plan is made for. Imports no JAX: the command reads it first."""

import dataclasses

from vlbeit_jax.cost.peaks import CHIPS, Chip
from vlbeit_jax.errors import UsageError

# To compile without a TPU, libtpu must not ask a metadata server for its chips.
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_PROCESS_BOUNDS": "1,1,1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Chips in a grid, or simulated devices of a CPU.

    Attributes:
      chip: None: devices of a CPU.
      shape: chips along each axis.
    """

    chip: Chip | None
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Chips, or devices."""
        product = 1
        for size in self.shape:
            product *= size
        return product

    def __str__(self) -> str:
        """As the command takes it."""
        return f"{self.chip.name if self.chip else 'cpu'}:{'x'.join(map(str, self.shape))}"


def parse_topology(text: str) -> Topology:
    """From "v5e:16x16", "v5p:4x4x4", "cpu:8".

    Raises:
      UsageError: no such chip, or a shape that its torus does not have.
    """
    name, _, sizes = text.partition(":")
    known = ", ".join(CHIPS)
    if name not in CHIPS and name != "cpu":
        raise UsageError(
            f"--topology={text}: no such chip; give one of {known} as in v5e:16x16, or cpu:8 for "
            "simulated devices"
        )
    axes = CHIPS[name].axes if name in CHIPS else 1
    parts = sizes.split("x")
    if len(parts) != axes or not all(part.isdecimal() and int(part) for part in parts):
        example = {1: "cpu:8", 2: f"{name}:4x4", 3: f"{name}:4x4x4"}[axes]
        raise UsageError(f"--topology={text}: {name} needs {axes} size(s) above 0, as in {example}")
    return Topology(CHIPS.get(name), tuple(int(part) for part in parts))
