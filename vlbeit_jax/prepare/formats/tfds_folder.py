"""A data set that TensorFlow Datasets has prepared, in its ArrayRecord files.

Of its catalogue, imagenet2012, coco_captions (with Karpathy's splits) and sets with ``text`` and
``label`` fit. It has no VQA v2, NLVR2 or Flickr30k. Records are read without TensorFlow.
"""

import os.path
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vlbeit_jax.data.identity import TEST, TRAIN, VALIDATION
from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import input_path
from vlbeit_jax.prepare.formats.base import BadInput, Found, Options, Plan, Unit
from vlbeit_jax.prepare.formats.look import look
from vlbeit_jax.prepare.formats.official import divided, only_one, ranges
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.types import Kind

KINDS = frozenset({Kind.IMAGES, Kind.PAIRS, Kind.TEXTS, Kind.LABELLED_IMAGES, Kind.LABELLED_TEXTS})
# Names of splits in the catalogue.
SPLITS = {TEST: ("test",), VALIDATION: ("validation", "val"), TRAIN: ("train", "restval")}
IDS = ("image/id", "file_name", "image/filename", "id")


def sniff(found: Found) -> bool:
    """Returns whether a folder has a version of a set that TFDS has prepared."""
    return bool(_versions(found.names))


def _versions(names: Sequence[str]) -> list[str]:
    """Returns the folders that have the files of a version; "." if it is the folder itself."""
    described = {os.path.dirname(name) for name in names if _ends(name, "dataset_info.json")}
    features = {os.path.dirname(name) for name in names if _ends(name, "features.json")}
    return sorted(name or "." for name in described & features)


def _ends(name: str, file: str) -> bool:
    return os.path.basename(name) == file


def plan(paths: Sequence[pathlib.Path], options: Options) -> Plan:
    """Divides the records of each split.

    A split whose labels are not published (they are -1) is passed over. If there is nothing but a
    training split, a hash decides which records are held out.

    Raises:
      UsageError: the folder has several versions or sets, TFDS cannot open it, or its files allow
        no random access.
    """
    given = only_one(paths, "tfds")
    versions = [] if (given / "dataset_info.json").is_file() else _versions(look(given).names)
    if len(versions) > 1:
        raise UsageError(f"{given}: give one of the versions in it: {', '.join(versions)}")
    folder = given / versions[0] if versions else given
    builder = _opened(folder)
    present = set(builder.info.splits)
    stated = bool(present & {*SPLITS[TEST], *SPLITS[VALIDATION]})
    described = [str(folder / "dataset_info.json")]

    def units(whole: Unit, split: str) -> list[Unit]:
        of_split: list[Unit] = []
        for name in SPLITS[split]:
            if name in present and _is_labelled(_records(builder, name), builder, folder):
                count = builder.info.splits[name].num_examples
                extra = {"name": name, "split": split if stated else "", "paths": described}
                of_split += ranges(whole, count, **extra)
        return of_split

    return divided(folder, options, SPLITS, units)


def read(unit: Unit, options: Options) -> Iterator[Item]:
    """Yields the records of a unit that have what an item holds: image, captions, text, label.

    Raises:
      BadInput: a record cannot be read.
    """
    folder, name = input_path(unit.path), unit.extra["name"]
    builder = _opened(folder)
    features, records = builder.info.features, _records(builder, name)
    for number in range(unit.start, unit.stop):
        record = _record(records, number, folder)
        given = next((record[each] for each in IDS if each in record), f"{name}/{number:08d}")
        key = _text(given)
        yield Item(
            key,
            record.get("image"),
            _captions(record.get("captions")),
            text=_text(record["text"]).strip() if "text" in record else "",
            source=f"{name}/{key}",
            label=features["label"].int2str(int(record["label"])) if "label" in record else "",
            split=unit.extra["split"],
            place=f"{folder}: {name}[{number}]",
        )


def _opened(folder: pathlib.Path) -> Any:
    import tensorflow_datasets as tfds
    from google.protobuf.json_format import ParseError

    if not (folder / "dataset_info.json").is_file():
        raise UsageError(
            f"{folder}: there is no dataset_info.json here; give the folder of one version of a "
            "prepared set, such as ~/tensorflow_datasets/imagenet2012/5.1.0"
        )
    try:
        builder: Any = tfds.builder_from_directory(folder)
    except (OSError, ValueError, KeyError, ParseError) as error:
        raise BadInput(folder, f"cannot be read as a prepared set ({error})") from error
    file_format = builder.info.file_format.value
    if file_format != "array_record":
        raise UsageError(
            f"{folder}: its files are of format {file_format}, which needs TensorFlow; prepare it "
            f"again with: tfds build {builder.name} --file_format=array_record"
        )
    return builder


def _records(builder: Any, name: str) -> Any:
    """Returns the records of a split, whose pictures stay encoded."""
    import tensorflow_datasets as tfds

    has_image = "image" in builder.info.features
    decoders = {"image": tfds.decode.SkipDecoding()} if has_image else None
    return builder.as_data_source(name, decoders=decoders)


def _is_labelled(records: Any, builder: Any, folder: pathlib.Path) -> bool:
    if "label" not in builder.info.features or not len(records):
        return True
    return int(_record(records, 0, folder)["label"]) >= 0


def _record(records: Any, number: int, folder: pathlib.Path) -> Any:
    from google.protobuf.message import DecodeError

    try:
        return records[number]
    except (RuntimeError, DecodeError) as error:
        raise BadInput(folder, f"record {number} cannot be read ({error})") from error


def _captions(caption: Any) -> tuple[str, ...]:
    """Returns captions: a sequence of texts, or of objects with ``text``."""
    if caption is None:
        return ()
    texts = caption["text"] if isinstance(caption, Mapping) else caption
    texts = [each["text"] if isinstance(each, Mapping) else each for each in texts]
    return tuple(_text(each).strip() for each in texts)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
