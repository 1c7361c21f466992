"""Seconds of a compiled step on a TPU, from the compiler's own cycle estimates. No chip is asked.

Two totals are always given, because the truth lies between them (docs/scale.md has what this was held against):

- plain: the estimated cycles of every instruction, summed. Good for matrix products; for vector work the figure is a score
  by which the compiler compares tilings, two to four times what bandwidth allows.
- bounded: matrix products as before, though never faster than their bytes; vector work as slow as its bytes or its operations
  demand, and never slower than the plain figure.

Collectives come on top: bytes from the program, time from the links. One that blocks is counted, one that runs beside
computation is taken to be hidden and listed.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vlbeit_jax.cost.chips import Topology
from vlbeit_jax.cost.hlo import MATMULS, Instruction, Program, loop_of, sizes

REACHED_BANDWIDTH = 0.85  # Share of the memory's bandwidth that streaming reaches; an assumption.
LANES = 8 * 128 * 4  # Operations a cycle of the vector unit (8 sublanes x 128 lanes x 4 units).
KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
FREE = {"parameter", "constant", "bitcast", "get-tuple-element", "tuple", "iota", "broadcast", "reshape", "copy", "slice"}
PASSED_ON = {"bitcast", "get-tuple-element", "custom-call", "reshape"}


class Collective(NamedTuple):
    """All collectives of one kind, size of group and manner, together.

    Attributes:
      kind: as HLO names it.
      group: chips that talk to each other.
      axes: of the torus that the group spreads over.
      blocking: whether nothing else runs meanwhile.
      count: how many a step.
      bytes: of the whole arrays, not of a chip's part, all of them together.
      seconds: by the links alone.
    """

    kind: str
    group: int
    axes: int
    blocking: bool
    count: float
    bytes: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class StepTime:
    """Estimated seconds of one step, and what they consist of."""

    plain: float
    bounded: float
    matmul: float
    collectives: list[Collective]

    @property
    def blocking(self) -> float:
        """Seconds in collectives beside which nothing runs."""
        return sum(found.seconds for found in self.collectives if found.blocking)


def step_time(program: Program, topology: Topology, places: Sequence[Sequence[int]]) -> StepTime:
    """Adds up a program.

    Args:
      program: of one chip, scheduled.
      topology: the chips.
      places: coordinates on the torus of the devices, in the program's order.
    """
    chip = topology.chip
    assert chip is not None, "a CPU's programs have no cycles"
    totals = collections.defaultdict(float)

    def visit(name: str, times: float) -> None:
        moved = _moved_bytes(program, name)
        for each in program.computations[name]:
            if each.opcode == "while":
                body, condition = loop_of(each)
                visit(body, times * program.trips(condition))
            elif each.cycles:
                plain, memory = each.cycles / chip.clock, moved[each.name] / chip.hbm_rate
                if program.contains(each, MATMULS):
                    bounded = max(plain, memory)
                    totals["matmul"] += times * bounded
                else:
                    bounded = min(plain, max(memory / REACHED_BANDWIDTH, _operations(program, each) / (LANES * chip.clock)))
                totals["plain"] += times * plain
                totals["bounded"] += times * bounded

    visit(program.entry, 1.0)
    found = collectives(program, topology, places)
    blocking = sum(each.seconds for each in found if each.blocking)
    return StepTime(totals["plain"] + blocking, totals["bounded"] + blocking, totals["matmul"], found)


def _moved_bytes(program: Program, name: str) -> Mapping[str, int]:
    """Bytes between main memory and chip by instruction; what a copy brings or takes belongs to who uses or makes it."""
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
        elif each.cycles:
            for operand in each.operands:
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
    return sum(inner.elements for called in each.calls for inner in program.computations.get(called, []) if inner.opcode not in FREE)


def collectives(program: Program, topology: Topology, places: Sequence[Sequence[int]]) -> list[Collective]:
    """Every collective of a step, those alike together, the longest first."""
    sums: dict[tuple, list[float]] = collections.defaultdict(lambda: [0, 0, 0.0])
    for kind, text, blocking, times in _started(program):
        groups = _groups(text, len(places))
        axes = _axes(groups, places)
        size = _whole_bytes(kind, text, len(groups[0]))
        entry = sums[kind, len(groups[0]), len(axes), blocking]
        entry[0] += times
        entry[1] += times * size
        entry[2] += times * _link_seconds(kind, size, len(groups[0]), axes, topology)
    found = [Collective(*key, count=n, bytes=size, seconds=seconds) for key, (n, size, seconds) in sums.items()]
    return sorted(found, key=lambda each: (-each.blocking, -each.seconds, -each.bytes))


def _started(program: Program) -> Iterator[tuple[str, str, bool, float]]:
    """Kind, line, whether it blocks and how often, of every collective."""
    seen = set()
    for each, times in program.executed():
        if each.opcode in KINDS:
            yield each.opcode, each.text, True, times
        elif each.opcode.removesuffix("-start") in KINDS:
            yield each.opcode.removesuffix("-start"), each.text, False, times
        elif each.opcode == "fusion":
            for called in each.calls:
                for inner in program.computations.get(called, []):
                    if inner.opcode not in KINDS:
                        continue
                    # A reduce-scatter is a fusion of an all-reduce and a slice. A collective beside computation is spread over
                    # several fusions, with one channel.
                    kind = "reduce-scatter" if called.startswith("all-reduce-scatter") else inner.opcode
                    hidden = called.startswith("async_collective") or each.name.startswith("async-collective")
                    channel = re.search(r"channel_id=\d+", inner.text)
                    if hidden and channel and channel.group() in seen:
                        continue
                    if hidden and channel:
                        seen.add(channel.group())
                    yield kind, inner.text, not hidden, times


def _groups(text: str, devices: int) -> list[list[int]]:
    """Devices that talk to each other, in any of HLO's three notations."""
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", text):
        return _groups_along(dict(re.findall(r"'(\w+)'=(\d+)", found.group(1))), re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", found.group(2)))
    if found := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        shape, dims = ([int(x) for x in found.group(n).split(",")] for n in (1, 2))
        order = np.arange(int(np.prod(dims))).reshape(dims)
        if found.group(3):
            order = order.transpose([int(x) for x in found.group(3).split(",")])
        return order.reshape(shape).tolist()
    if found := re.search(r"replica_groups=\{(\{[\d,{} ]*\})\}", text):
        return [[int(x) for x in group.split(",")] for group in re.findall(r"\{([\d, ]+)\}", found.group(1))]
    return [list(range(devices))]


def _groups_along(mesh: Mapping[str, str], along: Sequence[tuple[str, str, str]]) -> list[list[int]]:
    """Groups along some axes of a mesh, or along a part of an axis: (name, product of the sizes before the part, its size)."""
    shape, joined = [], []
    for name, whole in mesh.items():
        for wanted, before, part in along:
            if wanted == name and part:
                shape += [int(before), int(part), int(whole) // (int(before) * int(part))]
                joined.append(len(shape) - 2)
                break
            if wanted == name:
                shape.append(int(whole))
                joined.append(len(shape) - 1)
                break
        else:
            shape.append(int(whole))
    order = np.moveaxis(np.arange(math.prod(shape)).reshape(shape), joined, range(-len(joined), 0))
    return order.reshape(-1, math.prod(shape[axis] for axis in joined)).tolist()


def _axes(groups: list[list[int]], places: Sequence[Sequence[int]]) -> list[int]:
    """The torus's axes along which the first group spreads."""
    coordinates = np.array([places[device] for device in groups[0]])
    return [axis for axis in range(coordinates.shape[1]) if len(set(coordinates[:, axis])) > 1]


def _whole_bytes(kind: str, text: str, group: int) -> int:
    """Bytes of the whole array: an all-gather's result, a reduce-scatter's operand."""
    found = re.search(r" = (.*?) ((?:all|reduce|collective)-[a-z-]*)\(", text)
    assert found, text[:200]
    shape, opcode = found.groups()
    result = sizes(shape)[1]
    if opcode == "all-gather-start":
        return result * group // (group + 1)  # Operand and result stand in one tuple.
    if opcode == "collective-permute-start":
        return result // 2
    return result * group if opcode == "reduce-scatter" else result


def _link_seconds(kind: str, size: int, group: int, axes: list[int], topology: Topology) -> float:
    """Time on rings along the axes that the group spreads over; an axis without wrap-around is a line of one link."""
    chip = topology.chip
    if chip is None or group < 2 or not axes:
        return 0.0
    wraps = [topology.shape[axis] >= (16 if chip.axes == 2 else 4) for axis in axes]
    rate = sum(2 if wrap else 1 for wrap in wraps) * chip.link_rate
    if kind == "collective-permute":
        return size / chip.link_rate
    passes = {"all-reduce": 2, "all-to-all": 0.25}.get(kind, 1)
    return passes * size * (group - 1) / group / rate
