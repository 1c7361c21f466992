"""Plans the work on a source: which parts there are, and what is asked of each."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from vlbeit_jax.data.source import PreparedSet
from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import input_path, renames_folders
from vlbeit_jax.prepare.fitting import Fits
from vlbeit_jax.prepare.formats import (
    CLASS_NAMES,
    FORMATS,
    NEEDS_DISK,
    OFFICIAL,
    STATES_GROUPS,
    require_kind,
)
from vlbeit_jax.prepare.formats.base import Options, Plan, plan_of
from vlbeit_jax.prepare.formats.detect import recognise
from vlbeit_jax.prepare.inputs import expand
from vlbeit_jax.prepare.labels import Classes
from vlbeit_jax.prepare.pictures import Limits
from vlbeit_jax.prepare.records import GROUPED
from vlbeit_jax.prepare.work_plan import Asked, WorkPlan, files_of
from vlbeit_jax.types import Kind


@dataclasses.dataclass(frozen=True)
class Source:
    """What is read, and how.

    Attributes:
      kind: what records hold.
      source_format: a key of ``FORMATS``, or "auto".
      inputs: paths and patterns of ``inputs.expand``.
      options: for the format.
      validation_share: part of the pictures, or of the documents of a text set, that is held out.
        Splits that the source states win.
      max_dropped: largest share of items that may be unusable; none of annotated data.
      limits: for images.
      licence: of the content, kept in the description.
      apart_from: sets to be used with this one; what one holds out, the other does not train on.
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
    paths = expand(source.inputs)
    images = source.options.images
    if images and not input_path(images).is_dir():
        raise UsageError(f"--images={images}: no such folder")
    name = recognise(source.source_format, paths, source.kind, source.options.force)
    require_kind(name, source.kind)
    if name in NEEDS_DISK:
        _require_disk(name, paths)
    if source.options.splits and name not in OFFICIAL:
        raise UsageError(
            f"--splits is for formats of published benchmarks, {', '.join(sorted(OFFICIAL))}, but "
            f"--format={name}"
        )
    options = dataclasses.replace(source.options, kind=str(source.kind))
    found = plan_of(FORMATS[name], paths, options)
    asked = _asked(source, name, paths, looks, others)
    units = tuple(found.units)
    files = tuple(map(files_of, units))
    plan = WorkPlan(work, asked, units, files, source.max_dropped, options.bad_inputs)
    stated = {name: value for name, value in asked.options.items() if value and name != "kind"}
    told = {
        "source": ", ".join(path.name for path in paths),
        "format_read": name,
        "licence": source.licence,
        "options": {
            "validation_share": source.validation_share,
            "limits": dict(asked.limits),
            "max_dropped": source.max_dropped,
            "bad_inputs": options.bad_inputs,
            **stated,
        },
        "apart_from": [each.fingerprint for each in others],
        "skipped": dict(found.skipped),
        **({"links": found.links} if found.links else {}),
    }
    return plan, found, told


def _require_disk(name: str, paths: Sequence[pathlib.Path]) -> None:
    """Refuses inputs in a bucket. The advice names the folder of a file: others lie beside it."""
    inside = [path for path in paths if not renames_folders(path)]
    if not inside:
        return
    folders = {path: path if path.is_dir() else path.parent for path in inside}
    copied = " ".join(dict.fromkeys(map(str, folders.values())))
    given = " ".join(
        f"--input={path.relative_to(folder.parent).as_posix()}" for path, folder in folders.items()
    )
    raise UsageError(
        f"--input={inside[0]}: --format={name} reads files of this machine only; copy them with "
        f"gcloud storage cp --recursive {copied} . and give {given}, or mount the bucket (gcsfuse)"
    )


def _asked(
    source: Source,
    name: str,
    paths: Sequence[pathlib.Path],
    looks: bool,
    others: Sequence[PreparedSet],
) -> Asked:
    """Returns what decides the records."""
    official, states_groups = name in OFFICIAL, STATES_GROUPS.get(name)
    # Crawled pairs have no groups. A set without any keeps the fingerprint that it always had.
    grouped = source.kind in GROUPED or bool(
        source.kind is Kind.PAIRS and states_groups and states_groups(paths)
    )
    limits = source.limits.of_benchmark() if official else source.limits
    classes = _classes(source.kind, source.classes, name, paths)
    fits = source.fits
    options = dataclasses.asdict(source.options) | {"kind": str(source.kind)}
    del options["bad_inputs"], options["force"]
    return Asked(
        str(source.kind),
        name,
        source.validation_share,
        dataclasses.asdict(limits),
        official,
        grouped,
        classes.names,
        classes.file,
        str(fits.tokenizer.folder) if fits else "",
        fits.tokenizer.fingerprint if fits else "",
        fits.length if fits else 0,
        tuple(each.fingerprint for each in others),
        looks,
        options,
    )


def part_range(given: str) -> tuple[int, int] | None:
    """Returns the first part of ``--part_range`` and the one after the last; None: all parts.

    Raises:
      UsageError: it is no range.
    """
    if not given:
        return None
    start, colon, stop = given.partition(":")
    if not colon or not start.isdigit() or not stop.isdigit() or int(start) >= int(stop):
        raise UsageError(f"--part_range={given}: give two numbers, such as 0:100")
    return int(start), int(stop)


def require_whole_pictures(kind: Kind, limits: Limits) -> None:
    """Raises a ``UsageError`` if pictures with masks were to be made smaller."""
    if kind is Kind.MASKS and limits.short_side:
        raise UsageError(
            f"--short_side={limits.short_side} is not for masks, which must stay as they are; "
            "training and evaluation resize pictures"
        )


def _classes(kind: Kind, file: str, source_format: str, paths: Sequence[pathlib.Path]) -> Classes:
    """Returns the names of classes: those of a file, of the format, or else those of the records.

    Raises:
      UsageError: there is a file, but the kind has no classes.
    """
    if not file:
        known = CLASS_NAMES.get(source_format)
        return Classes(*known(paths)) if known else Classes()
    if not kind.has_label and kind is not Kind.MASKS:
        raise UsageError(f"--classes={file} is for labelled data and masks, but --kind={kind}")
    return Classes.read(file)
