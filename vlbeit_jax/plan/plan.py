"""Memory, time and cost of a configuration on some chips, without running anything.

The step is compiled for the chips, or its memory is estimated by a formula.
"""

import collections
import dataclasses
import time
from typing import Any

import jax

from vlbeit_jax.config.schema import settings_of
from vlbeit_jax.cost.flops import StepFlops
from vlbeit_jax.cost.peaks import GIB
from vlbeit_jax.errors import UsageError
from vlbeit_jax.plan import hlo, memory
from vlbeit_jax.plan.attention import AttentionUse, attention_uses
from vlbeit_jax.plan.devices import devices_of
from vlbeit_jax.plan.kernels import kernel_seconds
from vlbeit_jax.plan.links import Collective, collectives
from vlbeit_jax.plan.means import mean_collectives, mean_time
from vlbeit_jax.plan.memory import Memory
from vlbeit_jax.plan.step_time import StepTime, step_time
from vlbeit_jax.plan.topology import Topology
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.abstract import abstract_step
from vlbeit_jax.tasks.flops import step_flops
from vlbeit_jax.training.mesh import make_mesh
from vlbeit_jax.training.schedule import Schedule
from vlbeit_jax.training.state import declarations
from vlbeit_jax.training.trainable import trained_parameters

DAY = 86400.0


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a configuration needs on a topology.

    Attributes:
      topology: the chips.
      steps: of the run.
      memory: the most that any step of the schedule needs.
      flops: of the mean step.
      times: of the mean step; None without compilation, and on a CPU.
      collectives: of the mean step; None without compilation.
      compile_seconds: of all steps of the schedule; 0: nothing was compiled.
      xla_flops: XLA's count, with recomputation and elementwise operations. It counts the body of a
        loop once.
      attention: how the step computes it; empty on a CPU, which has no kernel.
    """

    topology: Topology
    steps: int
    memory: Memory
    flops: StepFlops
    times: StepTime | None
    collectives: list[Collective] | None
    compile_seconds: float
    xla_flops: float
    attention: list[AttentionUse]

    def as_json(self) -> dict[str, Any]:
        """Returns the JSON of the ``compile`` command; docs/scale.md describes it."""
        chip, count = self.topology.chip, self.topology.count
        values: dict[str, Any] = {
            "topology": str(self.topology),
            "chips": count,
            "compiled": bool(self.compile_seconds),
            "compile_seconds": round(self.compile_seconds, 1),
            "hbm": self.memory._asdict()
            | {"total": self.memory.total, "limit": chip.hbm_bytes if chip else None},
            "model_flops": self.flops.model,
            "frozen_flops": self.flops.frozen,
            "xla_flops": self.xla_flops,
            "samples": self.flops.samples,
            "tokens": self.flops.tokens,
            "steps": self.steps,
            "attention": [each._asdict() for each in self.attention],
            "collectives": None
            if self.collectives is None
            else [each._asdict() for each in self.collectives],
        }
        if chip is None or self.times is None:
            return values
        for name, seconds in (("", self.times.bounded), ("_plain", self.times.plain)):
            values[f"step_seconds{name}"] = seconds
            values[f"mfu{name}"] = self.flops.model / (seconds * count * chip.peak)
            values[f"days{name}"] = self.steps * seconds / DAY
            values[f"chip_hours{name}"] = self.steps * seconds * count / 3600
        return values | {
            "blocking_seconds": self.times.blocking,
            "waiting_seconds": self.times.waiting,
            "matmul_seconds": self.times.matmul,
            "kernel_seconds": self.times.kernels,
        }


def make_plan(config: Config, topology: Topology, compiled: bool) -> Plan:
    """Makes a plan.

    Args:
      config: the run; its data and tokenizers are not opened.
      topology: chips, or simulated devices of this process.
      compiled: whether to compile. If not, there are no times and collectives, and memory is
        estimated by a formula, in seconds.

    Raises:
      UsageError: the mesh does not fit the topology, or the step does not fit into a chip's memory.
    """
    config = _for_chips(config, topology)
    mesh = make_mesh(config.mesh, devices_of(topology))
    schedule = Schedule.parse(config.task.schedule)
    step, _, state, frozen, batches = abstract_step(config, mesh)
    task = config.task
    objectives = {name: stream.objective for name, stream in task.streams().items()}
    info = declarations(task.init).info
    trained = trained_parameters(config.optimizer.trainable, info)
    rows = mesh.shape["data"] * mesh.shape["fsdp"]
    cycle = collections.Counter(tuple(sorted(streams)) for streams in schedule.cycle)
    estimates, seconds, operations = [], 0.0, 0.0
    for streams, times in cycle.items():
        inputs = {stream: batches[stream] for stream in streams}
        by_formula = memory.estimate(
            objectives,
            state,
            info,
            frozen,
            inputs,
            config.run.accumulate,
            rows,
            mesh.shape["tensor"],
            topology.chip is not None,
            trained,
        )
        if not compiled:
            _check_fits(by_formula, topology, "by formula")
            estimates.append((times, by_formula, None, None))
            continue
        began = time.monotonic()
        program = _compile(step.lower(state, frozen, inputs), topology, by_formula)
        seconds += time.monotonic() - began
        operations += (
            times / len(schedule.cycle) * topology.count * program.cost_analysis()["flops"]
        )
        estimates.append(
            (times, *_read(program, topology, memory.kept(state, frozen, inputs), mesh))
        )
    most = max((needed for _, needed, *_ in estimates), key=lambda needed: needed.total)
    weights = [times / len(schedule.cycle) for times, *_ in estimates]
    times = mean_time(weights, [step_time for *_, step_time, _ in estimates])
    links = None if not compiled else mean_collectives(weights, [each for *_, each in estimates])
    return Plan(
        topology,
        config.run.steps,
        most,
        step_flops(config),
        times,
        links,
        seconds,
        operations,
        attention_uses(objectives, state.params, frozen, batches, mesh) if topology.chip else [],
    )


def _for_chips(config: Config, topology: Topology) -> Config:
    """Returns the configuration with the type of products that "auto" means on these chips."""
    if topology.chip is None:
        return config
    return dataclasses.replace(config, task=_in_bfloat16(config.task))


def _in_bfloat16(section: Any) -> Any:
    """Returns a section with bfloat16 for every network whose products have the type "auto"."""
    changes = {}
    for field in settings_of(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            changes[field.name] = _in_bfloat16(value)
        elif field.name == "matmul" and value == "auto":
            changes[field.name] = "bfloat16"
    return dataclasses.replace(section, **changes)


def _compile(lowered: Any, topology: Topology, by_formula: Memory) -> Any:
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        _check_fits(by_formula, topology, "by formula")
        said = next(
            (line for line in str(error).splitlines() if "hbm" in line.lower()),
            str(error).partition("\n")[0],
        )
        raise UsageError(_does_not_fit(by_formula, topology, said.strip())) from error


def _check_fits(needed: Memory, topology: Topology, how: str) -> None:
    if topology.chip and needed.total > topology.chip.hbm_bytes:
        raise UsageError(_does_not_fit(needed, topology, how))


def _does_not_fit(needed: Memory, topology: Topology, said: str) -> str:
    assert topology.chip
    parts = ", ".join(f"{name} {size / GIB:.1f}" for name, size in needed._asdict().items() if size)
    change = []
    if needed.parameters + needed.optimizer > needed.total / 4:
        change.append("a larger config.mesh.fsdp shards parameters and optimizer over more chips")
    if needed.temporaries > needed.total / 4:
        change.append("a larger config.run.accumulate cuts the batch into smaller microbatches")
        change.append("config.task.model.remat keeps less for the backward pass")
    return (
        f"the step does not fit into {topology.chip.hbm_bytes / GIB:.1f} GiB of a "
        f"{topology.chip.name} chip: "
        f"{needed.total / GIB:.1f} GiB needed ({parts}; {said})\n  "
        + "\n  ".join([*change, "or give more chips, or a smaller config.task.*.batch_size"])
    )


def _read(
    compiled: Any, topology: Topology, before: Memory, mesh: Any
) -> tuple[Memory, StepTime | None, list[Collective]]:
    """Memory, times and collectives out of a compiled step."""
    stats = compiled.memory_analysis()
    needed = before._replace(
        temporaries=stats.temp_size_in_bytes, program=stats.generated_code_size_in_bytes
    )
    try:
        program = hlo.parse(compiled.as_text())
    except jax.errors.JaxRuntimeError as error:
        raise UsageError(
            f"the program for {topology} cannot be read: this libtpu does not fit this jaxlib "
            f"({str(error).splitlines()[0]}); install the one that JAX names: launch/install.sh "
            "tpu, or pip install 'jax[tpu]'"
        ) from error
    if topology.chip is None:
        return (
            needed,
            None,
            collectives(program, topology, [(place,) for place in range(topology.count)]),
        )
    places = [device.coords for device in mesh.devices.flat]
    estimate = step_time(program, topology, places, kernel_seconds(program, topology))
    return needed, estimate, estimate.collectives
