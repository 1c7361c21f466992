"""Cycles of our own TPU kernels, from the instructions that the compiler schedules for them.

The compiler's cost model has no estimate for a kernel. But every bundle of instructions in its
machine code is a cycle, and a kernel of ``ops.fused_attention`` is one straight run of bundles for
each row of the batch, without a loop. So a second process compiles each kernel alone, has the
compiler write down its schedule, and counts the bundles. They do not include waiting for memory;
``plan.step_time`` compares them with the bytes.
"""

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

from vlbeit_jax.ops import fused_attention
from vlbeit_jax.plan.devices import devices_of
from vlbeit_jax.plan.hlo import Program
from vlbeit_jax.plan.topology import Topology, parse_topology

DUMP = "--xla_jf_dump_to={} --xla_jf_dump_llo_text=true"
_NAMED = re.compile(r"(forward|backward)_kernel_(\d+)")
_SHAPE = re.compile(r" = \(?(\w+)\[(\d+),(\d+),(\d+)\]")
_BUNDLES = re.compile(r"total scheduled bundles:\s+(\d+)")


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
      masked: whether some keys are padding.
    """

    part: str
    dtype: str
    batch: int
    length: int
    width: int
    heads: int
    masked: bool


def kernels_of(program: Program) -> dict[str, Kernel]:
    """The kernels of a program by the names of their instructions."""
    found = {}
    for each, _ in program.executed():
        named = _NAMED.match(each.name) if each.opcode == "custom-call" else None
        if named:
            shape = _SHAPE.search(each.text)
            assert shape, each.text[:200]
            inputs, widths = {"forward": (1, 1), "backward": (2, 3)}[named.group(1)]
            batch, length, columns = (int(size) for size in shape.groups()[1:])
            masked = len(each.operands) > inputs
            found[each.name] = Kernel(
                named.group(1),
                shape.group(1),
                batch,
                length,
                columns // widths,
                int(named.group(2)),
                masked,
            )
    return found


def kernel_seconds(program: Program, topology: Topology) -> dict[str, float]:
    """Seconds of every kernel of a program, by the name of its instruction.

    Compiles each kind of kernel once, in a process of its own.
    """
    chip, found = topology.chip, kernels_of(program)
    assert chip is not None
    if not found:
        return {}
    kinds = sorted(set(found.values()), key=str)
    one = f"{chip.name}:{'x'.join(['1'] * chip.axes)}" if chip.name != "v4" else "v4:2x2x1"
    asked = json.dumps([dataclasses.asdict(kind) for kind in kinds])
    done = subprocess.run(
        [sys.executable, "-m", __name__, one], input=asked, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"kernels could not be compiled alone for {one}:\n{done.stderr[-2000:]}")
    bundles = dict(zip(kinds, json.loads(done.stdout.splitlines()[-1]), strict=True))
    return {
        name: bundles[kind] * -(-kind.batch // chip.cores) / chip.clock
        for name, kind in found.items()
    }


def bundles_of(kernel: Kernel, device: Any, folder: pathlib.Path) -> int:
    """Bundles of one row, read from what the compiler has written into ``folder``."""
    mesh = Mesh([device], ("chip",))
    everywhere = NamedSharding(mesh, PartitionSpec())
    dtype = {"bf16": jnp.bfloat16, "f32": jnp.float32}[kernel.dtype]

    def array(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((kernel.batch, *shape), dtype, sharding=everywhere)

    valid = (
        jax.ShapeDtypeStruct((kernel.batch, 1, kernel.length), jnp.int32, sharding=everywhere)
        if kernel.masked
        else None
    )
    inputs = [
        array(kernel.length, widths * kernel.width)
        for widths in {"forward": (3,), "backward": (3, 1)}[kernel.part]
    ]
    before = set(folder.iterdir())
    with jax.set_mesh(mesh):
        jax.jit(
            lambda valid, *inputs: fused_attention.call_kernel(
                kernel.part, kernel.heads, valid, inputs
            )
        ).lower(valid, *inputs).compile()
    pattern = f"*{kernel.part}_kernel_{kernel.heads}*schedule-analysis_final_bundles.txt"
    (written,) = set(folder.glob(pattern)) - before
    found = _BUNDLES.search(written.read_text())
    assert found, written
    return int(found.group(1))


def main() -> None:
    """Reads kernels from standard input as JSON, and prints the bundles of each."""
    with tempfile.TemporaryDirectory() as folder:
        # libtpu reads this when it is loaded, which is when devices are first asked for.
        given = os.environ.get("LIBTPU_INIT_ARGS", "")
        os.environ["LIBTPU_INIT_ARGS"] = f"{given} {DUMP.format(folder)}"
        device = devices_of(parse_topology(sys.argv[1]))[0]
        print(
            json.dumps(
                [
                    bundles_of(Kernel(**asked), device, pathlib.Path(folder))
                    for asked in json.loads(sys.stdin.read())
                ]
            )
        )


if __name__ == "__main__":
    main()
