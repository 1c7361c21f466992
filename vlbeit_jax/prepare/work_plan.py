"""What is to be done, as a file: how the inputs are divided, and what is asked of each part.

The plan of ``--out=OUT`` is ``OUT.work/plan.json``, beside the parts that are finished. Equal
inputs and options give an equal plan, so a command that is run again finds its own parts.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import input_path, removal
from vlbeit_jax.prepare.apart import OtherSets
from vlbeit_jax.prepare.fitting import Fits
from vlbeit_jax.prepare.formats.base import Options, Unit
from vlbeit_jax.prepare.parts import Part, read_part, read_parts, whole
from vlbeit_jax.prepare.pictures import Limits
from vlbeit_jax.types import Kind

VERSION = 2
PLAN_FILE, PARTS_FOLDER, OTHERS_FOLDER = "plan.json", "parts", "others"
MOST_SHOWN = 10  # Differences in a message.


@dataclasses.dataclass(frozen=True)
class Asked:
    """What decides the records besides the input: with another value, records differ.

    Attributes:
      kind: what records hold.
      source_format: a key of ``formats.FORMATS``.
      validation_share: part of the pictures, texts or groups that is held out by hash.
      limits: for images.
      official: whether the source is a published benchmark, whose splits stand.
      grouped: whether records have a group.
      classes: names of the classes in order; empty: the records state them.
      classes_file: that they were read from.
      text_tokenizer: folder of the tokenizer that a caption must fit; empty: any length will do.
      tokenizer_fingerprint: of that tokenizer.
      length: word pieces of a caption at most, CLS and SEP included.
      apart_from: fingerprints of the other sets.
      looks: whether the looks of pictures are needed.
      options: of ``formats.base.Options``, by name.
    """

    kind: str
    source_format: str
    validation_share: float
    limits: Mapping[str, Any]
    official: bool = False
    grouped: bool = False
    classes: tuple[str, ...] = ()
    classes_file: str = ""
    text_tokenizer: str = ""
    tokenizer_fingerprint: str = ""
    length: int = 0
    apart_from: tuple[str, ...] = ()
    looks: bool = False
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class WorkPlan:
    """A plan and its folder.

    Attributes:
      folder: ``OUT.work``.
      request: what decides the records.
      units: what is read for each part, in the order of the records.
      files: path, bytes and time of change of the files of each part.
      max_dropped: largest share of items that may be unusable.
      bad_inputs: "stop" at a damaged file, or "skip" it.
    """

    folder: pathlib.Path
    request: Asked
    units: tuple[Unit, ...]
    files: tuple[tuple[tuple[str, int, int], ...], ...]
    max_dropped: float = 1.0
    bad_inputs: str = "stop"

    @property
    def parts_folder(self) -> pathlib.Path:
        """The folder of the parts."""
        return self.folder / PARTS_FOLDER

    @property
    def kind(self) -> Kind:
        """What records hold."""
        return Kind(self.request.kind)

    @property
    def limits(self) -> Limits:
        """For images."""
        return Limits(**self.request.limits)

    @property
    def options(self) -> Options:
        """For the format."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in self.request.options.items()
        }
        return Options(**values, bad_inputs=self.bad_inputs)

    @functools.cached_property
    def _request(self) -> str:
        told = {"version": VERSION, **dataclasses.asdict(self.request)}
        return json.dumps(told, sort_keys=True)

    @functools.cached_property
    def _asked(self) -> dict[int, str]:
        return {}

    @functools.cached_property
    def others(self) -> OtherSets | None:
        """The sets that this one is kept apart from."""
        if not self.request.apart_from:
            return None
        return OtherSets.read(self.folder / OTHERS_FOLDER)

    @functools.cached_property
    def fits(self) -> Fits | None:
        """Finds captions that are too long."""
        if not self.request.text_tokenizer:
            return None
        return Fits(TextTokenizer(self.request.text_tokenizer), self.request.length)

    def asked(self, number: int) -> str:
        """Returns the hash of what decides the records of a part."""
        if number not in self._asked:
            part = json.dumps(self._part(number), sort_keys=True)
            asked = hashlib.sha256(f"{self._request}{part}".encode()).hexdigest()
            self._asked[number] = asked
        return self._asked[number]

    def finished(self, number: int) -> Part | None:
        """Returns the counts of a part of this plan; None if it is not finished."""
        part = read_part(self.parts_folder, number)
        return part if part and part.asked == self.asked(number) else None

    def all_finished(self) -> dict[int, Part]:
        """Returns the counts of all finished parts of this plan by number."""
        parts = read_parts(self.parts_folder)
        return {
            number: part
            for number, part in parts.items()
            if number < len(self.units) and part.asked == self.asked(number)
        }

    @property
    def skips_bad_inputs(self) -> bool:
        """Whether damaged files are left out; a benchmark has to be complete."""
        return self.bad_inputs == "skip" and not self.request.official

    def as_json(self) -> dict[str, Any]:
        """Returns the plan as JSON values."""
        request = dataclasses.asdict(self.request)
        parts = [self._part(number) for number in range(len(self.units))]
        told = {"version": VERSION, "request": request, "parts": parts}
        sha256 = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
        may_change = {"max_dropped": self.max_dropped, "bad_inputs": self.bad_inputs}
        return {**told, "plan_sha256": sha256, **may_change}

    def save(self) -> None:
        """Writes the plan, with one line for each part."""
        self.parts_folder.mkdir(parents=True, exist_ok=True)
        told = self.as_json()
        parts = ",\n  ".join(map(json.dumps, told.pop("parts")))
        head = json.dumps(told, indent=1).removesuffix("\n}")
        with whole(self.folder / PLAN_FILE) as path:
            path.write_text(f'{head},\n "parts": [\n  {parts}\n ]\n}}\n')

    def require_same(self) -> None:
        """Checks that the finished parts in the folder are parts of this plan.

        Unfinished parts may change: the user can replace a damaged file and run the command again.

        Raises:
          UsageError: they are of another plan. The message says what differs and what to remove.
        """
        others = [
            number
            for number, part in read_parts(self.parts_folder).items()
            if number >= len(self.units) or part.asked != self.asked(number)
        ]
        if not others:
            return
        before, now = _read(self.folder), json.loads(json.dumps(self.as_json()))
        differences = list(_differences(before, now))
        more = len(differences) - MOST_SHOWN
        shown = [*differences[:MOST_SHOWN], *([f"and {more} more"] if more > 0 else [])]
        raise UsageError(
            f"{self.folder} holds {len(others)} finished parts of another plan, which differs in "
            f"{'; '.join(shown) or 'the program'}. Run the command as before to continue it, or "
            f"remove it to begin anew: {removal(self.folder)}"
        )

    def _part(self, number: int) -> dict[str, Any]:
        unit, files = self.units[number], self.files[number]
        return {"unit": vars(unit), "files": [list(each) for each in files]}


def read_plan(folder: pathlib.Path) -> WorkPlan:
    """Returns the plan of a folder.

    Raises:
      OSError: it has none.
    """
    told = _read(folder)
    request = told["request"]
    for name in ("classes", "apart_from"):
        request[name] = tuple(request[name])
    return WorkPlan(
        folder,
        Asked(**request),
        tuple(Unit(**part["unit"]) for part in told["parts"]),
        tuple(tuple((p, b, t) for p, b, t in part["files"]) for part in told["parts"]),
        told["max_dropped"],
        told["bad_inputs"],
    )


def files_of(unit: Unit) -> tuple[tuple[str, int, int], ...]:
    """Returns path, bytes and time of change (ns) of the files that a unit names."""
    files = []
    for path in dict.fromkeys((unit.path, *unit.extra.get("paths", ()))):
        if input_path(path).is_file():
            state = input_path(path).stat()
            files.append((path, state.st_size, state.st_mtime_ns))
    return tuple(files)


def _read(folder: pathlib.Path) -> dict[str, Any]:
    return json.loads((folder / PLAN_FILE).read_text())


def _differences(before: Any, now: Any, name: str = "") -> Any:
    """Yields each value that differs, by its name."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now} - {"plan_sha256", "max_dropped", "bad_inputs"}):
            inner = f"{name}.{key}" if name else key
            yield from _differences(before.get(key), now.get(key), inner)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for place, both in enumerate(zip(before, now, strict=True)):
            yield from _differences(*both, f"{name}[{place}]")
    elif before != now:
        yield f"{name.removeprefix('request.')}: {_short(before)} before, {_short(now)} now"


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value)} entries"
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:80]} ..."
