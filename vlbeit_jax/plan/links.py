"""Collectives of a compiled step: their bytes, their groups, and their time on a torus's links."""

import collections
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vlbeit_jax.plan.hlo import Instruction, Program, sizes
from vlbeit_jax.plan.topology import Topology

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


Link = tuple[int, int]  # Axis of the torus and direction along it.


class Collective(NamedTuple):
    """All collectives that agree in kind, size of group, axes and blocking.

    Attributes:
      kind: as HLO names it.
      group: chips in a group.
      axes: axes of the torus that a group spreads over.
      blocking: whether computation waits for it.
      count: number per step.
      bytes: of the whole arrays, not of a chip's part, summed over all.
      seconds: by the links alone.
    """

    kind: str
    group: int
    axes: int
    blocking: bool
    count: float
    bytes: float
    seconds: float


def collectives(
    program: Program, topology: Topology, places: Sequence[Sequence[int]]
) -> list[Collective]:
    """Returns every collective of a step, those alike together, the longest first."""
    sums: dict[tuple, list[float]] = collections.defaultdict(lambda: [0, 0, 0.0])
    for kind, text, blocking, times in _all(program):
        groups = _groups(text, len(places))
        axes = _axes(groups, places)
        size = _whole_bytes(kind, text, len(groups[0]))
        entry = sums[kind, len(groups[0]), len(axes), blocking]
        entry[0] += times
        entry[1] += times * size
        entry[2] += times * _link_seconds(kind, size, len(groups[0]), axes, topology)
    listed = [
        Collective(*key, count=n, bytes=size, seconds=seconds)
        for key, (n, size, seconds) in sums.items()
    ]
    return sorted(listed, key=lambda each: (-each.blocking, -each.seconds, -each.bytes))


def _all(program: Program) -> Iterator[tuple[str, str, bool, float]]:
    """Kind, line, whether it blocks and how often, of every collective."""
    for each, times in program.executed():
        if each.opcode in KINDS:
            yield each.opcode, each.text, True, times
        elif begun := started(program, each):
            yield *begun, False, times
        elif each.opcode == "fusion" and not each.handed_on:
            for called in each.calls:
                inside = program.computations.get(called, [])
                if any("AsyncCollective" in inner.text for inner in inside):
                    continue  # The end of one; its start was counted.
                for inner in (inner for inner in inside if inner.opcode in KINDS):
                    # A reduce-scatter is a fusion of an all-reduce and a slice.
                    yield (
                        "reduce-scatter"
                        if called.startswith("all-reduce-scatter")
                        else inner.opcode,
                        inner.text,
                        True,
                        times,
                    )


def _groups(text: str, devices: int) -> list[list[int]]:
    """Returns the devices that talk to each other, in any of HLO's three notations."""
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", text):
        return _groups_along(
            dict(re.findall(r"'(\w+)'=(\d+)", match.group(1))),
            re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", match.group(2)),
        )
    if match := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
        shape, dims = ([int(x) for x in match.group(n).split(",")] for n in (1, 2))
        order = np.arange(int(np.prod(dims))).reshape(dims)
        if match.group(3):
            order = order.transpose([int(x) for x in match.group(3).split(",")])
        return order.reshape(shape).tolist()
    if match := re.search(r"replica_groups=\{(\{[\d,{} ]*\})\}", text):
        return [
            [int(x) for x in group.split(",")]
            for group in re.findall(r"\{([\d, ]+)\}", match.group(1))
        ]
    return [list(range(devices))]


def _groups_along(
    mesh: Mapping[str, str], along: Sequence[tuple[str, str, str]]
) -> list[list[int]]:
    """Returns the groups along some axes of a mesh, or along a part of an axis.

    Args:
      mesh: size of each axis, as written.
      along: for each axis its name and, for a part of it, the product of the sizes before the part
        and the size of the part.
    """
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
    """Returns the torus's axes along which the first group spreads."""
    coordinates = np.array([places[device] for device in groups[0]])
    return [axis for axis in range(coordinates.shape[1]) if len(set(coordinates[:, axis])) > 1]


def _whole_bytes(kind: str, text: str, group: int) -> int:
    """Returns the bytes of the whole array: an all-gather's result, a reduce-scatter's operand."""
    match = re.search(r" = (.*?) ((?:all|reduce|collective)-[a-z-]*)\(", text)
    assert match, text[:200]
    shape, opcode = match.groups()
    result = sizes(shape)[1]
    if opcode == "all-gather-start":
        return result * group // (group + 1)  # Operand and result stand in one tuple.
    if opcode == "collective-permute-start":
        return result // 2
    return result * group if opcode == "reduce-scatter" else result


def _link_seconds(kind: str, size: int, group: int, axes: list[int], topology: Topology) -> float:
    """Time on rings along a group's axes; an axis without wrap-around is a line of one link."""
    chip = topology.chip
    if chip is None or group < 2 or not axes:
        return 0.0
    wraps = [topology.shape[axis] >= (16 if chip.axes == 2 else 4) for axis in axes]
    rate = sum(2 if wrap else 1 for wrap in wraps) * chip.link_rate
    if kind == "collective-permute":
        return size / chip.link_rate
    passes = {"all-reduce": 2, "all-to-all": 0.25}.get(kind, 1)
    return passes * size * (group - 1) / group / rate


def started(program: Program, each: Instruction) -> tuple[str, str] | None:
    """Returns kind and line of the collective that an instruction starts and does not wait for."""
    if each.opcode.endswith("-start") and each.opcode.removesuffix("-start") in KINDS:
        return each.opcode.removesuffix("-start"), each.text
    if each.opcode == "fusion":
        inside = [inner for called in each.calls for inner in program.computations.get(called, [])]
        if any("AsyncCollectiveStart" in inner.text for inner in inside):
            return next((inner.opcode, inner.text) for inner in inside if inner.opcode in KINDS)
    return None


def origin_of_end(
    program: Program, each: Instruction, known: Mapping[str, Instruction]
) -> str | None:
    """Returns the name of the instruction that started what this one waits for.

    Fusions in between take the arrays as operands and hand them on.
    """
    if not each.operands:
        return None
    if each.opcode.endswith("-done"):
        return each.operands[0]
    inside = (
        (inner for called in each.calls for inner in program.computations.get(called, []))
        if each.opcode == "fusion"
        else ()
    )
    if not any("AsyncCollectiveDone" in inner.text for inner in inside):
        return None
    name = each.operands[0]
    while (
        (source := known.get(name)) is not None
        and source.opcode == "get-tuple-element"
        and source.operands
    ):
        maker, index = known[source.operands[0]], int(re.findall(r"index=(\d+)", source.text)[-1])
        if index not in maker.handed_on:
            return maker.name
        name = maker.operands[maker.handed_on[index]]
    return name


def links_of(kind: str, text: str, places: Sequence[Sequence[int]]) -> list[Link]:
    """Returns the links of a chip that a collective uses.

    They are both links of each axis, or the one towards a neighbour for a permutation.
    """
    if kind == "collective-permute" and (
        match := re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", text)
    ):
        here, there = (np.array(places[int(device)]) for device in match.groups())
        (axis, *_), size = np.flatnonzero(here != there), np.array(places).max(axis=0) + 1
        forward = (there - here)[axis] % size[axis] <= size[axis] // 2
        return [(int(axis), 1 if forward else -1)]
    return [(axis, way) for axis in _axes(_groups(text, len(places)), places) for way in (1, -1)]


def seconds_of(kind: str, text: str, topology: Topology, places: Sequence[Sequence[int]]) -> float:
    """How long one takes, by its kind and its line."""
    groups = _groups(text, len(places))
    return _link_seconds(
        kind,
        _whole_bytes(kind, text, len(groups[0])),
        len(groups[0]),
        _axes(groups, places),
        topology,
    )
