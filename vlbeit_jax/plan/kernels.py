"""Cycles of our own TPU kernels, from the instructions that the compiler schedules for them.

The compiler's cost model has no estimate for a kernel. But every bundle of instructions in its
machine code is a cycle. A kernel of ``ops.fused_attention`` is one straight run of bundles for each
row of the batch. One of ``ops.long_attention`` is a run for each row and group of heads, with a
loop over blocks of queries inside. So a second process compiles each kernel alone, has the compiler
write down its schedule, and counts the bundles. They do not include waiting for memory;
``plan.step_time`` compares them with the bytes. They do not include the start of each program of
the grid either.
"""

import collections
import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vlbeit_jax.ops import fused_attention, long_attention
from vlbeit_jax.ops.device import LANES
from vlbeit_jax.ops.kernel_memory import block_lengths
from vlbeit_jax.plan.devices import devices_of
from vlbeit_jax.plan.hlo import Program
from vlbeit_jax.plan.topology import Topology, parse_topology

DUMP = "--xla_jf_dump_to={} --xla_jf_dump_llo_text=true"
# JAX puts "jvp" and the like before a kernel's own name.
_NAMED = re.compile(r"(forward|backward)_(long_)?kernel_(\d+)((?:_(?:valid|mask|bias))*)")
_SHAPE = re.compile(r" = \(?(\w+)\[(\d+),(\d+),(\d+)\]")
# A bundle has a ">" for each loop that it is in. The outermost loop is that over the grid.
_BUNDLE = re.compile(r"^\s*0x[0-9a-f]+\s+(?:[A-Z]+)?\s*:\s*(>*)", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Kernel:
    """Everything that a kernel's code depends on.

    Attributes:
      part: "forward" or "backward".
      dtype: HLO's name of the type.
      batch: rows.
      length: tokens of a row.
      width: of all heads together.
      heads: number of heads.
      options: what it gets besides queries, keys and values: "valid", "mask", "bias".
      long: whether it is one of ``ops.long_attention``.
    """

    part: str
    dtype: str
    batch: int
    length: int
    width: int
    heads: int
    options: tuple[str, ...]
    long: bool

    @property
    def name(self) -> str:
        """As the program calls it."""
        return "_".join(
            [self.part, *["long"] * self.long, "kernel", str(self.heads), *self.options]
        )

    @property
    def programs(self) -> int:
        """Programs of the grid that a row of the batch takes."""
        return self.width // LANES if self.long else 1


def kernels_of(program: Program) -> dict[str, Kernel]:
    """Returns the kernels of a program by the names of their instructions."""
    kernels = {}
    for each, _ in program.executed():
        named = _NAMED.search(each.name) if each.opcode == "custom-call" else None
        if named:
            part, long, heads, options = named.groups()
            shape = _SHAPE.search(each.text)
            assert shape, each.text[:200]
            batch, length, columns = (int(size) for size in shape.groups()[1:])
            kernels[each.name] = Kernel(
                part,
                shape.group(1),
                batch,
                length,
                columns // {"forward": 1, "backward": 3}[part],
                int(heads),
                tuple(options.split("_")[1:]),
                bool(long),
            )
    return kernels


def kernel_seconds(program: Program, topology: Topology) -> dict[str, float]:
    """Returns the seconds of every kernel of a program, by the name of its instruction.

    Compiles each kind of kernel once, in a process of its own.
    """
    chip, kernels = topology.chip, kernels_of(program)
    assert chip is not None
    if not kernels:
        return {}
    kinds = sorted(set(kernels.values()), key=str)
    one = f"{chip.name}:{'x'.join(['1'] * chip.axes)}" if chip.name != "v4" else "v4:2x2x1"
    asked = json.dumps([dataclasses.asdict(kind) for kind in kinds])
    done = subprocess.run(
        [sys.executable, "-m", __name__, one], input=asked, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"kernels could not be compiled alone for {one}:\n{done.stderr[-2000:]}")
    cycles = dict(zip(kinds, json.loads(done.stdout.splitlines()[-1]), strict=True))
    return {
        name: cycles[kind] * -(-kind.batch // chip.cores) / chip.clock
        for name, kind in kernels.items()
    }


def cycles_of(kernel: Kernel, device: Any, folder: pathlib.Path) -> int:
    """Returns the cycles of one row, read from what the compiler has written into ``folder``."""
    mesh = Mesh([device], ("chip",))
    everywhere = NamedSharding(mesh, PartitionSpec())
    batch, length = kernel.batch, kernel.length
    dtype = {"bf16": jnp.bfloat16, "f32": jnp.float32}[kernel.dtype]

    def array(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=everywhere)

    known = {
        "valid": array(jnp.int32, batch, 1, length),
        "mask": array(jnp.int8, length, length),
        "bias": array(jnp.float32, kernel.heads, length, length),
    }
    options = {name: known[name] for name in kernel.options}
    widths = {"forward": (3,), "backward": (3, 1)}[kernel.part]
    inputs = [array(dtype, batch, length, width * kernel.width) for width in widths]

    def call(options: Any, inputs: Any) -> Any:
        if kernel.long:
            return long_attention.call_kernel(kernel.part, kernel.heads, options, tuple(inputs))
        valid = options.get("valid")
        return fused_attention.call_kernel(kernel.part, kernel.heads, valid, tuple(inputs))

    before = set(folder.iterdir())
    with jax.set_mesh(mesh):
        jax.jit(call).lower(options, inputs).compile()
    (written,) = (
        path
        for path in set(folder.glob(f"*{kernel.name}*-final_bundles.txt")) - before
        if "schedule-analysis" not in path.name
    )
    looped = block_lengths(length)[0] if kernel.long else 0
    return cycles_in(written.read_text(), kernel.programs, looped)


def cycles_in(schedule: str, programs: int, looped: int) -> int:
    """Returns the cycles of one row of the batch.

    Args:
      schedule: the bundles of a kernel, as the compiler writes them.
      programs: of the grid, for a row.
      looped: how often the loop inside a program runs; 0: there is none.
    """
    depths = bundles_by_depth(schedule)
    assert depths.keys() <= {0, 1, 2} and bool(depths[2]) == bool(looped), depths
    return programs * (depths[1] + looped * depths[2])


def bundles_by_depth(schedule: str) -> collections.Counter[int]:
    """Counts the bundles of a schedule by the number of loops around them, that of the grid too."""
    return collections.Counter(len(depth) for depth in _BUNDLE.findall(schedule))


def main() -> None:
    """Reads kernels from standard input as JSON, and prints the cycles of each."""
    with tempfile.TemporaryDirectory() as folder:
        # libtpu reads this when it is loaded, which is when devices are first asked for.
        given = os.environ.get("LIBTPU_INIT_ARGS", "")
        os.environ["LIBTPU_INIT_ARGS"] = f"{given} {DUMP.format(folder)}"
        device = devices_of(parse_topology(sys.argv[1]))[0]
        print(
            json.dumps(
                [
                    cycles_of(Kernel(**asked), device, pathlib.Path(folder))
                    for asked in json.loads(sys.stdin.read())
                ]
            )
        )


if __name__ == "__main__":
    main()
