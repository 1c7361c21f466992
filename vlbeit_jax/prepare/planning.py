"""Plans the work on a source: which parts there are, and what is asked of each."""

import dataclasses
import glob
import pathlib
from collections.abc import Sequence
from typing import Any

from vlbeit_jax.data.source import PreparedSet
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.fitting import Fits
from vlbeit_jax.prepare.formats import FORMATS, OF_FOLDERS, OFFICIAL, STATES_GROUPS, require_kind
from vlbeit_jax.prepare.formats.base import Options, Plan
from vlbeit_jax.prepare.labels import Classes
from vlbeit_jax.prepare.pictures import Limits
from vlbeit_jax.prepare.records import GROUPED
from vlbeit_jax.prepare.work_plan import Asked, WorkPlan, files_of
from vlbeit_jax.types import Kind


def expand(patterns: Sequence[str], *, folders: bool = False) -> list[pathlib.Path]:
    """Returns the files, or folders, of some paths and patterns, sorted within each, each once.

    Raises:
      UsageError: one of them names none.
    """
    found: list[pathlib.Path] = []
    for pattern in patterns:
        paths = [pathlib.Path(path) for path in sorted(glob.glob(pattern))]
        wanted = [path for path in paths if (path.is_dir() if folders else path.is_file())]
        if not wanted and paths:
            hint = (
                "is no folder; this format reads folders, so name the one that holds it"
                if folders
                else "is a folder; name its files, or read its pictures with --format=folder"
            )
            raise UsageError(f"--input={pattern}: {hint}")
        if not wanted:
            raise UsageError(f"--input={pattern}: no such {'folder' if folders else 'file'}")
        found += wanted
    return list(dict.fromkeys(found))


@dataclasses.dataclass(frozen=True)
class Source:
    """What is read, and how.

    Attributes:
      kind: what records hold.
      source_format: a key of ``FORMATS``.
      inputs: paths and glob patterns.
      options: for the format.
      validation_share: part of the pictures, or of the documents of a text set, that is held back.
        Splits that the source states win.
      max_dropped: largest share of items that may be unusable; none of annotated data.
      limits: for images.
      licence: of the content, kept in the description.
      apart_from: sets to be used with this one; what one holds back, the other does not train on.
      classes: file with the names of the classes; empty: those in the source, sorted.
      fits: gives an item a fault if its captions are too long; None: any length will do.
    """

    kind: Kind
    source_format: str
    inputs: Sequence[str]
    options: Options = Options()
    validation_share: float = 0.1
    max_dropped: float = 0.1
    limits: Limits = Limits()
    licence: str = ""
    apart_from: Sequence[str] = ()
    classes: str = ""
    fits: Fits | None = None


def planned(
    work: pathlib.Path, source: Source, looks: bool, others: Sequence[PreparedSet]
) -> tuple[WorkPlan, Plan, dict[str, Any]]:
    """Returns the plan of the work, that of the format, and what the description says of them.

    Args:
      work: folder of the work.
      source: what is read.
      looks: whether the looks of pictures are needed.
      others: the sets of ``source.apart_from``.

    Raises:
      UsageError: the inputs, the format and the options do not fit each other.
    """
    require_kind(source.source_format, source.kind)
    name = source.source_format
    if source.options.splits and name not in OFFICIAL:
        raise UsageError(
            f"--splits is for formats of published benchmarks, {', '.join(sorted(OFFICIAL))}, but "
            f"--format={name}"
        )
    paths = expand(source.inputs, folders=name in OF_FOLDERS)
    found = FORMATS[name].plan(paths, source.options)
    official = name in OFFICIAL
    states_groups = STATES_GROUPS.get(name)
    # Crawled pairs have no groups. A set without any keeps the fingerprint that it always had.
    grouped = source.kind in GROUPED or bool(
        source.kind is Kind.PAIRS and states_groups and states_groups(paths)
    )
    limits = source.limits.of_benchmark() if official else source.limits
    classes, fits = _classes(source.kind, source.classes), source.fits
    options = dataclasses.asdict(source.options)
    bad_inputs = options.pop("bad_inputs")
    asked = Asked(
        str(source.kind),
        name,
        source.validation_share,
        dataclasses.asdict(limits),
        official,
        grouped,
        classes.names,
        source.classes,
        str(fits.tokenizer.folder) if fits else "",
        fits.tokenizer.fingerprint if fits else "",
        fits.length if fits else 0,
        tuple(each.fingerprint for each in others),
        looks,
        options,
    )
    # What a benchmark's training part has in common with its held-back parts is left out, so all of
    # it is one part.
    tasks = (tuple(found.units),) if official else tuple((unit,) for unit in found.units)
    files = tuple(map(files_of, tasks))
    plan = WorkPlan(work, asked, tasks, files, source.max_dropped, bad_inputs)
    told = {
        "source": ", ".join(path.name for path in paths),
        "format_read": name,
        "licence": source.licence,
        "options": {
            "validation_share": source.validation_share,
            "limits": dataclasses.asdict(limits),
            "max_dropped": source.max_dropped,
            "bad_inputs": bad_inputs,
            **{name: value for name, value in options.items() if value},
        },
        "apart_from": [each.fingerprint for each in others],
        "skipped": dict(found.skipped),
        **({"links": found.links} if found.links else {}),
    }
    return plan, found, told


def _classes(kind: Kind, file: str) -> Classes:
    """Returns the names of labels: those of a file, or else those that records will state.

    Raises:
      UsageError: there is a file, but the kind has no classes.
    """
    if not file:
        return Classes()
    if not kind.has_label:
        raise UsageError(f"--classes={file} is for labelled data, but --kind={kind}")
    return Classes.read(file)
