"""Parses the text of a compiled program into instructions with their bytes, cycles and calls.

It reads no more of HLO than a cost needs.
"""

import dataclasses
import math
import re
from collections.abc import Collection, Iterator, Mapping

# Bits of an element, by the name of its type.
BITS = {
    "pred": 8,
    "s4": 4,
    "u4": 4,
    "s8": 8,
    "u8": 8,
    "f8e4m3fn": 8,
    "f8e5m2": 8,
    "s16": 16,
    "u16": 16,
    "bf16": 16,
    "f16": 16,
}
BITS |= {"s32": 32, "u32": 32, "f32": 32, "s64": 64, "u64": 64, "f64": 64, "c64": 64}
MATMULS = {"convolution", "dot"}

_COMPUTATION = re.compile(r"^(ENTRY )?%(\S+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%(\S+) = (.*)$")
_ARRAY = re.compile(r"\b([a-z]+[0-9]*[a-z0-9]*)\[([0-9,]*)\](?:\{([^}]*)\})?")
_OPCODE = re.compile(r"([a-z][a-z0-9-]*)\(")
_NAME = re.compile(r"%([\w.-]+)")
_CALLS = re.compile(
    r"(?:calls|body|condition|to_apply|async_execution_thread|called_computations)="
    r"\{?(%[\w.-]+(?:, %[\w.-]+)*)\}?"
)
_HANDED_ON = re.compile(r"\{(\d+)\}: \((\d+), \{\}\)")
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a program.

    Attributes:
      name: unique in the program.
      opcode: as in "fusion".
      elements: of the result, all arrays of a tuple together.
      bytes: of the result in any memory.
      hbm_bytes: of the result's arrays in the chip's main memory.
      operands: names.
      handed_on: from outputs of a tuple to the operands that they pass on unchanged, by index.
        Their bytes are not counted.
      calls: computations that it runs.
      cycles: the compiler's estimate; 0: it has none.
      text: the whole line.
    """

    name: str
    opcode: str
    elements: int
    bytes: int
    hbm_bytes: int
    operands: tuple[str, ...]
    handed_on: Mapping[int, int]
    calls: tuple[str, ...]
    cycles: int
    text: str


@dataclasses.dataclass(frozen=True)
class Program:
    """Computations by name, each a list of instructions, and the one where execution starts."""

    computations: Mapping[str, list[Instruction]]
    entry: str

    def executed(self) -> Iterator[tuple[Instruction, float]]:
        """Every instruction that runs by itself and how often; what is inside a fusion does not."""
        yield from self._executed(self.entry, 1.0)

    def _executed(self, name: str, times: float) -> Iterator[tuple[Instruction, float]]:
        for each in self.computations[name]:
            yield each, times
            if each.opcode == "while":
                body, condition = loop_of(each)
                yield from self._executed(body, times * self.trips(condition))
            elif each.opcode in ("call", "conditional", "async-start"):
                for called in each.calls:
                    yield from self._executed(called, times)

    def trips(self, condition: str) -> int:
        """How often a loop runs."""
        # The constant that the condition compares the counter with: TPU programs have the number
        # nowhere else.
        bounds = [
            int(m.group(1))
            for each in self._all(condition)
            if (m := re.search(r"constant\((\d+)\)", each.text))
        ]
        return max(bounds, default=1)

    def contains(self, each: Instruction, opcodes: set[str]) -> bool:
        """Whether an instruction is one of some kinds, or a fusion around one."""
        return each.opcode in opcodes or any(
            inner.opcode in opcodes for called in each.calls for inner in self._all(called)
        )

    def operands(self, computation: str) -> Mapping[str, Instruction]:
        """Instructions of a computation by name."""
        return {each.name: each for each in self.computations[computation]}

    def _all(self, name: str) -> Iterator[Instruction]:
        for each in self.computations.get(name, []):
            yield each
            for called in each.calls:
                yield from self._all(called)


def parse(text: str) -> Program:
    """Returns a program from what ``compiled.as_text()`` gives."""
    computations: dict[str, list[Instruction]] = {}
    entry, lines = "", []
    for line in text.splitlines():
        if line.startswith(("%", "ENTRY")) and (match := _COMPUTATION.match(line)):
            lines = computations.setdefault(match.group(2), [])
            entry = match.group(2) if match.group(1) else entry
        elif line.startswith("  ") and (match := _INSTRUCTION.match(line)):
            lines.append(_instruction(match.group(1), match.group(2), line))
    return Program(computations, entry)


def _instruction(name: str, rest: str, line: str) -> Instruction:
    shape, rest = _split_shape(rest)
    opcode = _OPCODE.match(rest)
    assert opcode, line[:200]
    arguments, attributes = _split_arguments(rest[opcode.end() :])
    cycles = _CYCLES.search(attributes)
    handed_on = (
        {int(output): int(operand) for output, operand in _HANDED_ON.findall(attributes)}
        if "async" in attributes
        else {}
    )
    elements, total, hbm = sizes(shape, leave_out=handed_on)
    calls = tuple(
        called.strip()[1:] for group in _CALLS.findall(attributes) for called in group.split(",")
    )
    return Instruction(
        name,
        opcode.group(1),
        elements,
        total,
        hbm,
        tuple(_NAME.findall(arguments)),
        handed_on,
        calls,
        int(cycles.group(1)) if cycles else 0,
        line,
    )


def _split_shape(rest: str) -> tuple[str, str]:
    """Splits after the type, which ends at the first blank outside of brackets."""
    depth = 0
    for place, letter in enumerate(rest):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == " " and depth == 0:
            return rest[:place], rest[place + 1 :]
    return rest, ""


def _split_arguments(rest: str) -> tuple[str, str]:
    depth = 1
    for place, letter in enumerate(rest):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return rest[:place], rest[place + 1 :]
    return rest, ""


def sizes(shape: str, leave_out: Collection[int] = ()) -> tuple[int, int, int]:
    """Elements, bytes, and bytes in main memory, of an array type or a tuple of them."""
    # A layout with S(1) or above is a memory on the chip.
    elements = total = hbm = 0
    for index, (kind, dimensions, layout) in enumerate(
        array for array in _ARRAY.findall(shape) if array[0] in BITS
    ):
        if index in leave_out:
            continue
        count = math.prod(int(size) for size in dimensions.split(",") if size)
        size = count * BITS[kind] // 8
        elements, total = elements + count, total + size
        hbm += 0 if re.search(r"S\([1-9]", layout) else size
    return elements, total, hbm


def loop_of(each: Instruction) -> tuple[str, str]:
    """Returns the names of a while's body and condition."""
    body, condition = (
        re.search(rf"{part}=%([\w.-]+)", each.text) for part in ("body", "condition")
    )
    assert body and condition, each.text[:200]
    return body.group(1), condition.group(1)
