"""Command: memory, step time and cost of a configuration on TPU chips, without having any."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from absl import flags
from ml_collections import config_flags

from vlbeit_jax import cli
from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import appearing, place, require_writable

if TYPE_CHECKING:
    from vlbeit_jax.plan.plan import Plan
    from vlbeit_jax.plan.topology import Topology

OVERVIEW = """Compiles the train step of a configuration for a TPU topology, on any Linux machine.
It prints memory, time and cost.

  python -m vlbeit_jax.compile --config=configs/pretrain_base.py --topology=v5e:16x16
  python -m vlbeit_jax.compile --config=configs/pretrain_base.py --topology=v5p:4x4x4 \\
      --config.mesh.fsdp=16 --json=plan.json

With --estimate, a formula gives the memory within seconds. With --topology=cpu:8, the command lists
the collectives on simulated devices.

Compiling needs libtpu (launch/install.sh tpu, or pip install 'jax[tpu]'), but no TPU. The command
does not open data and tokenizers; config.task.tokenizer_model describes the visual tokenizer."""

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "configuration file; --config.x.y=z overrides a field", lock_config=True
)
TOPOLOGY = flags.DEFINE_string(
    "topology", "", "chips: v4:4x4x4, v5e:16x16, v5p:4x4x4, v6e:16x16; or cpu:8, simulated devices"
)
JSON = flags.DEFINE_string("json", "", "file that gets the result")
ESTIMATE = flags.DEFINE_bool("estimate", False, "estimate memory by a formula, without compiling")
flags.mark_flag_as_required("config")


def main() -> None:
    """Checks the flags, compiles, prints."""
    from vlbeit_jax.plan.topology import ENVIRONMENT, parse_topology
    from vlbeit_jax.tasks.new_run import parse_run

    if not TOPOLOGY.value:
        raise UsageError(
            "--topology missing: name chips, as in --topology=v5e:16x16; --help shows how to use "
            "this"
        )
    topology = parse_topology(TOPOLOGY.value)
    if JSON.value:
        require_writable(place(JSON.value, "--json"))
    config = parse_run(cli.config_values(CONFIG), to_train=False)
    os.environ.update(ENVIRONMENT)
    import jax

    # Not by its environment, which JAX has read already: the configuration file imports it.
    jax.config.update("jax_platforms", "cpu")
    if topology.chip is None:
        jax.config.update("jax_num_cpu_devices", topology.count)
    from vlbeit_jax.plan.plan import make_plan

    with quiet_stderr():
        plan = make_plan(config, topology, compiled=not ESTIMATE.value)
    print(describe(plan, topology))
    if JSON.value:
        with appearing(place(JSON.value)) as out:
            out.write(json.dumps(plan.as_json(), indent=1) + "\n")


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hides what libtpu's C++ code writes to standard error."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def describe(plan: "Plan", topology: "Topology") -> str:
    """Returns the plan as text."""
    from vlbeit_jax.cost.peaks import GIB

    chip, values = topology.chip, plan.as_json()
    lines = [
        f"{topology}: {plan.topology.count} {'chips' if chip else 'simulated devices'}, "
        f"{values['samples']:.0f} samples a step"
    ]
    parts = [f"{name} {size / GIB:.2f}" for name, size in plan.memory._asdict().items()]
    limit = f" of {chip.hbm_bytes / GIB:.0f}" if chip else ""
    how = "as compiled" if plan.compile_seconds else "by formula"
    lines.append(
        f"memory of a {'chip' if chip else 'device'}, {how}: {plan.memory.total / GIB:.2f}{limit} "
        f"GiB ({', '.join(parts)})"
    )
    lines.append(
        f"model: {plan.flops.model / 1e12:.2f} TFLOP a step, forward and backward; "
        f"frozen networks {plan.flops.frozen / 1e12:.2f}"
    )
    for each in plan.attention:
        why = f", because our TPU kernels {each.reason}" if each.reason else ""
        lines.append(f"attention of {each.tokens:,} tokens: {each.implementation}{why}")
    if "mfu" in values:
        for name, text in (("", "bounded"), ("_plain", "plain")):
            lines.append(
                f"{text:8s} {1e3 * values[f'step_seconds{name}']:8.2f} ms a step, "
                f"MFU {values[f'mfu{name}']:.1%}; "
                f"{plan.steps:,} steps: {values[f'days{name}']:.2f} days, "
                f"{values[f'chip_hours{name}']:,.0f} chip-hours"
            )
    for each in plan.collectives or []:
        took = (
            f", {1e3 * each.seconds:.2f} ms{'' if each.blocking else ' beside computation'}"
            if chip
            else ""
        )
        lines.append(
            f"  {each.count:g} {each.kind} over {each.group}: {each.bytes / 1e6:.1f} MB{took}"
        )
    if plan.compile_seconds:
        lines.append(f"compiled in {plan.compile_seconds:.0f} s")
    if "mfu" in values:
        lines.append(
            "Times are estimates by the compiler's cost model; no chip was used. Expect the truth "
            "between the two. docs/scale.md compares them with a published run."
        )
        assert chip
        if not chip.calibrated:
            lines.append(
                f"The clock of {chip.name} is a guess, and no estimate for it was compared with a "
                "run: its times are rough."
            )
    return "\n".join(lines)


if __name__ == "__main__":
    cli.run(main, OVERVIEW)
