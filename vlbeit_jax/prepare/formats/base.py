"""What a format is: it recognises its inputs, divides them into units, and reads one unit."""

import collections
import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import input_path
from vlbeit_jax.prepare.item import Item, source_paths
from vlbeit_jax.storage import unmasked
from vlbeit_jax.types import Kind

# How much one unit holds, so that its part has about 128 to 512 MB.
UNIT_PICTURES = 5000
UNIT_TEXT = 64 << 20  # Bytes.
BAD_INPUT = "bad_input"
UNITS = "units"  # Extra of a unit that consists of several units.


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line may say to a format; each format uses what it needs.

    Attributes:
      kind: of the records to make; empty: that of the format's usual records.
      images: folder that paths in an index are relative to; empty: the folder of the index.
      splits: of a published benchmark, those to read; empty: all.
      image_column: of a table whose columns are not recognised.
      caption_column: of such a table; for texts, the column of the text.
      sentencepiece: model of texts that are stored as numbers of pieces.
      documents: where a document of a text file ends: at each ``line``, at a ``blank_line``, or
        empty: at blank lines if the file has any.
      force: read the input in the given format, whatever it looks like.
      bad_inputs: "stop" at a damaged file, or "skip" it.
    """

    kind: str = ""
    images: str = ""
    splits: tuple[str, ...] = ()
    image_column: str = ""
    caption_column: str = ""
    sentencepiece: str = ""
    documents: str = ""
    force: bool = False
    bad_inputs: str = "stop"


@dataclasses.dataclass(frozen=True)
class Unit:
    """What one worker reads. It holds JSON values only, so that a plan can be a file.

    Attributes:
      path: of a file or a folder.
      source: the path below the inputs' common folder; without suffix, it begins the keys of items.
      start: first row, byte or entry, as the format counts them.
      stop: the one after the last; -1: read to the end.
      extra: what else the format needs to know.
    """

    path: str
    source: str
    start: int = 0
    stop: int = -1
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def stem(self) -> str:
        """The source without suffix."""
        return pathlib.PurePosixPath(self.source).with_suffix("").as_posix()


@dataclasses.dataclass
class Plan:
    """How to read some inputs.

    Attributes:
      units: in the order of the items.
      skipped: files and members that are no examples, by reason; what ``read`` skips comes on top.
      links: of a list of links: how many were ``given``, how many are ``alive``, and how many have
        each status. Empty if the source is no list of links.
      notes: sentences for the user.
      items: how many items there will be; None: counting them would take long.
    """

    units: list[Unit]
    skipped: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    links: dict[str, int] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    items: int | None = None


@dataclasses.dataclass(frozen=True)
class Found:
    """What a format may look at to recognise an input.

    Attributes:
      path: of the input.
      is_folder: whether it is a folder.
      head: the first 64 KiB of a file, decompressed if it is compressed as a whole.
      names: of a folder: paths of some files below it, sorted.
      samples: of a folder: some of its files, one of each suffix.
    """

    path: pathlib.Path
    is_folder: bool
    head: bytes = b""
    names: tuple[str, ...] = ()
    samples: "tuple[Found, ...]" = ()

    def files(self) -> "tuple[Found, ...]":
        """Returns the file itself, or the samples of a folder."""
        return self.samples if self.is_folder else (self,)


class Format(Protocol):
    """A module with these names, registered by one line in ``formats/__init__.py``.

    Attributes:
      KINDS: what its items can become.
    """

    KINDS: frozenset[Kind]

    def sniff(self, found: Found) -> bool:
        """Returns whether an input looks like this format, by its content."""
        ...

    def plan(self, paths: Sequence[pathlib.Path], options: Options) -> Plan:
        """Divides inputs into units. Equal inputs give an equal plan.

        Raises:
          UsageError: the inputs cannot be read in this format, or ``options`` do not fit it.
        """
        ...

    def read(self, unit: Unit, options: Options) -> Iterator[Item]:
        """Yields the items of a unit: the same ones whenever and wherever it is called.

        An item that cannot be used has a ``fault``; a file or member that is no example has a
        ``skip``.

        Raises:
          BadInput: a file is damaged.
        """
        ...


class BadInput(UsageError):
    """An input file that is damaged, while others may be sound."""

    def __init__(self, path: pathlib.Path | str, why: str):
        """Says which file it is, and what is wrong with it."""
        super().__init__(f"{path}: {why}")
        self.path, self.why = str(path), why

    def __reduce__(self) -> tuple[type["BadInput"], tuple[str, str]]:
        """Lets a worker process send it."""
        return type(self), (self.path, self.why)


@contextlib.contextmanager
def left_out_if_bad(plan: Plan, options: Options) -> Iterator[None]:
    """Leaves a damaged file out of a plan, counted and named, if the user has asked for that."""
    try:
        yield
    except BadInput as error:
        if (told := unmasked(error)) is not error:
            raise told from error
        if options.bad_inputs != "skip":
            raise
        plan.skipped[BAD_INPUT] += 1
        plan.notes.append(f"left out: {error}")


def a_unit_each(paths: Sequence[pathlib.Path], **extra: Any) -> list[Unit]:
    """Returns one unit for each file or folder."""
    sources = source_paths(paths) if paths else []
    return [
        Unit(str(path), source.as_posix(), extra=extra)
        for path, source in zip(paths, sources, strict=True)
    ]


def plan_of(form: Format, paths: Sequence[pathlib.Path], options: Options) -> Plan:
    """Returns the plan of a format, with small files that follow each other put into one unit."""
    plan = form.plan(paths, options)
    gathered: list[list[Unit]] = []
    size = 0
    for unit in plan.units:
        # The size of an index does not tell the size of its pictures.
        small = "number" not in unit.extra and unit.start == 0 and unit.stop == -1
        length = input_path(unit.path).stat().st_size if small else UNIT_TEXT
        if not gathered or size + length > UNIT_TEXT:
            gathered.append([])
            size = 0
        gathered[-1].append(unit)
        size += length
    plan.units = [_gathered(units) for units in gathered]
    return plan


def _gathered(units: list[Unit]) -> Unit:
    if len(units) == 1:
        return units[0]
    extra = {UNITS: [vars(unit) for unit in units], "paths": [unit.path for unit in units]}
    return Unit(units[0].path, units[0].source, extra=extra)


def units_in(unit: Unit) -> list[Unit]:
    """Returns the units that a unit consists of; itself, if it is a single one."""
    return [Unit(**each) for each in unit.extra.get(UNITS, ())] or [unit]


def read_unit(form: Format, unit: Unit, options: Options) -> Iterator[Item]:
    """Yields the items of a unit, which may consist of several units.

    Raises:
      BadInput: a file is damaged.
    """
    for each in units_in(unit):
        yield from form.read(each, options)


def read_all(
    form: Format, paths: Sequence[pathlib.Path], options: Options | None = None
) -> Iterator[Item]:
    """Yields all items of some inputs, one unit after the other."""
    options = options or Options()
    for unit in plan_of(form, paths, options).units:
        yield from read_unit(form, unit, options)
