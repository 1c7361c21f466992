"""Seconds of a compiled step on a TPU, from the compiler's own cycle estimates. No chip is asked.

There are always two totals, because the truth lies between them (docs/scale.md compares them with
measurements):

- plain: the sum of the estimated cycles of all instructions. They are good for matrix products. For
  vector work, they are scores by which the compiler compares tilings, two to four times what
  bandwidth allows.
- bounded: matrix products as before, but no faster than their bytes. Vector work is as slow as its
  bytes or its operations demand, and never slower than the plain figure.

Collectives come on top: bytes from the program, time from the links. One that blocks counts in
full. One that runs beside computation counts as far as it ends later than what was scheduled
between its start and its end; a link carries one at a time.

The compiler has no estimate for our own kernels; ``plan.kernels`` has their cycles.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

from vlbeit_jax.plan import links
from vlbeit_jax.plan.hlo import MATMULS, Instruction, Program, loop_of
from vlbeit_jax.plan.topology import Topology

REACHED_BANDWIDTH = 0.85  # Share of the memory's bandwidth that streaming reaches; an assumption.
LANES = 8 * 128 * 4  # Operations a cycle of the vector unit (8 sublanes x 128 lanes x 4 units).
FREE = {
    "parameter",
    "constant",
    "bitcast",
    "get-tuple-element",
    "tuple",
    "iota",
    "broadcast",
    "reshape",
    "copy",
    "slice",
}
PASSED_ON = {"bitcast", "get-tuple-element", "custom-call", "reshape"}


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Estimated seconds of one step, and their parts.

    Attributes:
      plain: total, with the compiler's own figures for vector work.
      bounded: total, with vector work bounded by bandwidth.
      matmul: of the bounded one, in matrix products.
      kernels: in kernels of our own, the same in both totals.
      waiting: of the bounded one, for collectives that did not end beside computation.
      collectives: all of them.
    """

    plain: float
    bounded: float
    matmul: float
    kernels: float
    waiting: float
    collectives: list[links.Collective]

    @property
    def blocking(self) -> float:
        """Seconds in collectives beside which nothing runs."""
        return sum(each.seconds for each in self.collectives if each.blocking)


def step_time(
    program: Program,
    topology: Topology,
    places: Sequence[Sequence[int]],
    kernels: Mapping[str, float] = {},
) -> StepTime:
    """Adds up a program.

    Args:
      program: of one chip, scheduled.
      topology: the chips.
      places: coordinates on the torus of the devices, in the program's order.
      kernels: seconds of every kernel of our own, by the name of its instruction.
    """
    assert topology.chip is not None, "a CPU's programs have no cycles"
    clock = _Clock(program, topology, places, kernels)
    clock.run(program.entry, 1.0)
    collectives = links.collectives(program, topology, places)
    blocking = sum(each.seconds for each in collectives if each.blocking)
    totals = {name: clock.now[name] + blocking for name in ("plain", "bounded")}
    return StepTime(
        **totals,
        matmul=clock.matmul,
        kernels=clock.kernels,
        waiting=clock.waiting,
        collectives=collectives,
    )


class _Clock:
    """Both totals while a program's instructions are added in order; when links will be free."""

    def __init__(
        self,
        program: Program,
        topology: Topology,
        places: Sequence[Sequence[int]],
        kernels: Mapping[str, float],
    ):
        assert topology.chip is not None
        self._program, self._topology, self._chip, self._places, self._known = (
            program,
            topology,
            topology.chip,
            places,
            kernels,
        )
        self.now = {"plain": 0.0, "bounded": 0.0}
        self._links_free: dict[str, dict[links.Link, float]] = {
            total: collections.defaultdict(float) for total in self.now
        }
        self.matmul = self.kernels = self.waiting = 0.0

    def run(self, name: str, times: float) -> None:
        """Adds a computation that runs ``times`` times."""
        moved, arrivals = _moved_bytes(self._program, name), {}
        known = self._program.operands(name)
        for each in self._program.computations[name]:
            if each.opcode == "while":
                body, condition = loop_of(each)
                self.run(body, times * self._program.trips(condition))
            elif begun := links.started(self._program, each):
                seconds, used = (
                    links.seconds_of(*begun, self._topology, self._places),
                    links.links_of(*begun, self._places),
                )
                arrivals[each.name] = {
                    total: self._sent(total, times * seconds, used) for total in self.now
                }
            elif (origin := links.origin_of_end(self._program, each, known)) in arrivals:
                for total, arrival in arrivals.pop(origin).items():
                    late = max(0.0, arrival - self.now[total])
                    self.now[total] += late
                    self.waiting += late if total == "bounded" else 0.0
            self._compute(each, times, moved[each.name])

    def _sent(self, total: str, seconds: float, used: Sequence[links.Link]) -> float:
        """When what is sent now will have arrived."""
        free = self._links_free[total]
        arrival = max([self.now[total], *(free[link] for link in used)]) + seconds
        free.update({link: arrival for link in used})
        return arrival

    def _compute(self, each: Instruction, times: float, moved: int) -> None:
        plain, memory = each.cycles / self._chip.clock, moved / self._chip.hbm_rate
        if each.name in self._known:
            plain = bounded = max(self._known[each.name], memory / REACHED_BANDWIDTH)
            self.kernels += times * bounded
        elif not each.cycles:
            return
        elif self._program.contains(each, MATMULS):
            bounded = max(plain, memory)
            self.matmul += times * bounded
        else:
            operations = _operations(self._program, each) / (LANES * self._chip.clock)
            bounded = min(plain, max(memory / REACHED_BANDWIDTH, operations))
        self.now["plain"] += times * plain
        self.now["bounded"] += times * bounded


def _moved_bytes(program: Program, name: str) -> Mapping[str, int]:
    """Returns the bytes between main memory and chip, by instruction.

    A copy's bytes belong to the instruction that uses or makes what is copied.
    """
    known = program.operands(name)
    moved = {each.name: each.hbm_bytes for each in known.values()}

    def source(operand: str) -> Instruction | None:
        each = known.get(operand)
        while each is not None and each.opcode in PASSED_ON and each.operands:
            each = known.get(each.operands[0])
        return each

    for each in known.values():
        if each.opcode in ("copy-start", "slice-start"):
            maker = source(each.operands[0])
            if maker is not None and maker.cycles and maker.hbm_bytes == 0:
                moved[maker.name] += maker.bytes  # Made on the chip and then taken to main memory.
        elif each.cycles or each.opcode == "custom-call":
            for index, operand in enumerate(each.operands):
                if index in each.handed_on.values():
                    continue
                maker = source(operand)
                if maker is None:
                    continue
                brought = maker.opcode in ("copy-done", "slice-done") and maker.hbm_bytes == 0
                here = known[operand] if operand in known else maker
                moved[each.name] += here.bytes if brought else here.hbm_bytes
    return moved


def _operations(program: Program, each: Instruction) -> int:
    """Elementwise operations of a fusion, or of a lone instruction."""
    if not each.calls:
        return each.elements
    return sum(
        inner.elements
        for called in each.calls
        for inner in program.computations.get(called, [])
        if inner.opcode not in FREE
    )
