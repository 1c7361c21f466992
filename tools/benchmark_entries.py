"""Reads the entries of docs/benchmarks, and says what is wrong with one."""

import datetime
import json
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from vlbeit_jax.errors import UsageError

FOLDER = pathlib.Path("docs/benchmarks")
FORMAT = 1
# Rates that are written down as integers, and MFU as tenths of a percent, differ by less.
ROUNDING = 0.01


class Field(NamedTuple):
    """What a field of an entry has to be.

    Attributes:
      must: in words.
      holds: whether a value is so.
      known: whether it must be there; others are null if nobody has measured them.
    """

    must: str
    holds: Callable[[Any], bool]
    known: bool = True


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _positive(value: Any) -> bool:
    return _number(value) and value > 0


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _day(value: Any) -> bool:
    try:
        return datetime.date.fromisoformat(value) <= datetime.datetime.now(datetime.UTC).date()
    except (TypeError, ValueError):
        return False


def _counts(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(map(_count, value.values()))


def _spread(value: Any) -> bool:
    """Median, and what else is known: quartiles, min, max, in order."""
    if not isinstance(value, Mapping) or not _positive(value.get("median")):
        return False
    quartiles = value.get("quartiles") or []
    if not isinstance(quartiles, Sequence) or len(quartiles) not in (0, 3):
        return False
    ordered = [value.get("min"), *quartiles[:1], value["median"], *quartiles[2:], value.get("max")]
    ordered = [each for each in ordered if each is not None]
    return all(map(_positive, ordered)) and ordered == sorted(ordered)


def _versions(value: Any) -> bool:
    return isinstance(value, Mapping) and {"python", "jax", "vlbeit_jax"} <= value.keys()


def _one_of(*values: str) -> Field:
    return Field(f"one of {', '.join(values)}", lambda value: value in values)


POSITIVE, COUNT, TEXT = (
    Field("a number above 0", _positive),
    Field("an integer above 0", _count),
    Field("a text", _text),
)
OBJECT = Field("an object", lambda value: isinstance(value, Mapping))
SPREAD = Field("an object with the median, and quartiles, min and max in this order", _spread)
FIELDS: dict[str, Field] = {
    "format": Field(f"{FORMAT}", lambda value: value == FORMAT),
    "source": Field('"benchmark", or where the figures were written down', _text),
    "date": Field("a day that is past, as in 2026-11-26", _day),
    "notes": Field("a text, or empty", lambda value: isinstance(value, str)),
    "command": Field(
        "the command, python -m ...",
        lambda value: _text(value) and value.startswith("python -m "),
    ),
    "config": TEXT,
    "changes": OBJECT,
    "machine": OBJECT,
    "device": TEXT,
    "platform": _one_of("cpu", "gpu", "tpu"),
    "devices": COUNT,
    "versions": Field("an object with python, jax and vlbeit_jax", _versions),
    "matmul": _one_of("float32", "bfloat16"),
    "attention": TEXT,
    "batch_sizes": Field("an object from streams to integers above 0", _counts),
    "mesh": Field("an object from axes to integers above 0", _counts),
    "input": _one_of("synthetic", "real"),
    "steps": COUNT._replace(known=False),
    "step_seconds": SPREAD._replace(known=False),
    "data_wait": Field("a share", lambda value: _number(value) and 0 <= value <= 1, False),
    "compile_seconds": POSITIVE._replace(known=False),
    "samples_per_second": POSITIVE,
    "tokens_per_second": POSITIVE._replace(known=False),
    "model_flops": POSITIVE,
    "frozen_flops": Field("a number, at least 0", lambda value: _number(value) and value >= 0),
    "model_flops_per_second": POSITIVE,
    "peak_flops_per_second": POSITIVE._replace(known=False),
    "peak_source": TEXT,
    "mfu": Field("between 0 and 1", lambda value: _number(value) and 0 < value < 1, False),
    "peak_memory_bytes": COUNT._replace(known=False),
    "peak_memory_source": Field("what the bytes are of", _text, False),
}


def problems(entry: Any) -> list[str]:
    """Returns what is wrong with an entry."""
    if not isinstance(entry, Mapping):
        return ["it must be a JSON object"]
    missing = [f"{name} is missing" for name in FIELDS if name not in entry]
    unknown = [f"{name}: there is no such field" for name in entry if name not in FIELDS]
    wrong = [
        f"{name} is {json.dumps(entry[name])}; it must be {field.must}"
        for name, field in FIELDS.items()
        if name in entry
        and (field.known or entry[name] is not None)
        and not field.holds(entry[name])
    ]
    return missing + unknown + wrong or list(_contradictions(entry))


def _contradictions(entry: Mapping[str, Any]) -> Iterator[str]:
    """Yields figures that do not follow from one another."""
    samples, rate = sum(entry["batch_sizes"].values()), entry["samples_per_second"]
    seconds, peak = entry["step_seconds"], entry["peak_flops_per_second"]
    flops = entry["model_flops_per_second"]
    if seconds and not _close(rate * seconds["median"], samples):
        yield (
            f"samples_per_second={rate:.6g} times the median step, {seconds['median']:.6g} s, is "
            f"not the {samples} samples of batch_sizes"
        )
    if not _close(flops, entry["model_flops"] * rate / samples):
        yield (
            f"model_flops_per_second={flops:.6g} is not model_flops={entry['model_flops']:.6g} "
            f"times {rate / samples:.6g} steps a second"
        )
    if entry["mfu"] and not (peak and _close(entry["mfu"], flops / peak)):
        yield f"mfu={entry['mfu']:.6g} is not model_flops_per_second over peak_flops_per_second"
    memory = entry["machine"].get("memory_gib")
    if memory and (entry["peak_memory_bytes"] or 0) > memory * 2**30:
        yield f"peak_memory_bytes is above the {memory:.1f} GiB that the card has"


def _close(one: float, other: float) -> bool:
    return abs(one - other) <= ROUNDING * abs(other)


def read(path: pathlib.Path) -> dict[str, Any]:
    """Returns an entry.

    Raises:
      UsageError: the file cannot be read or is not a valid entry. All problems are listed.
    """
    try:
        entry = json.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from error
    if wrong := problems(entry):
        raise UsageError("\n  ".join([f"{path} is not an entry:", *wrong]))
    return entry


def read_all(folder: pathlib.Path = FOLDER) -> dict[str, dict[str, Any]]:
    """Returns the entries of a folder by the name of their file, in the order of the table.

    Raises:
      UsageError: a file is not a valid entry.
    """
    found = {path.name: read(path) for path in sorted(folder.glob("*.json"))}
    order = sorted(
        found.items(),
        key=lambda each: (
            each[1]["platform"] == "cpu",
            each[1]["device"],
            each[1]["config"],
            -sum(each[1]["batch_sizes"].values()),
            each[1]["attention"],
            each[1]["frozen_flops"],
            each[0],
        ),
    )
    return dict(order)
