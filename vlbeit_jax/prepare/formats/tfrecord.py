"""TFRecord files of ``tf.train.Example``, as img2dataset writes them; read without TensorFlow.

A record is its length (8 bytes), a checksum of the length, the content, and its checksum. We check
the first of the two: the second takes longer in Python than to decode the picture, which shows any
damage that matters.
"""

import pathlib
import struct
from collections.abc import Iterator, Sequence
from typing import IO, Any, cast

from vlbeit_jax.places import input_path
from vlbeit_jax.prepare.formats.base import (
    UNIT_PICTURES,
    BadInput,
    Found,
    Options,
    Plan,
    Unit,
    a_unit_each,
    left_out_if_bad,
)
from vlbeit_jax.prepare.formats.captions import no_words
from vlbeit_jax.prepare.formats.columns import Columns, columns_of, need_columns
from vlbeit_jax.prepare.formats.files import files_below
from vlbeit_jax.prepare.formats.packed import DAMAGED, compression, opened
from vlbeit_jax.prepare.formats.sidecars import links_of
from vlbeit_jax.prepare.formats.words import decoded
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.types import Kind

KINDS = frozenset({Kind.IMAGES, Kind.PAIRS, Kind.TEXTS})
HEAD, TAIL = 12, 4


def sniff(found: Found) -> bool:
    """Returns whether a file begins with a length and its checksum."""
    return any(_length(file.head[:HEAD]) > 0 for file in found.files())


def plan(paths: Sequence[pathlib.Path], options: Options) -> Plan:
    """Divides each file between records.

    Raises:
      BadInput: a file is damaged.
      UsageError: the names of its features are unknown.
    """
    result = Plan([], items=0)
    files = files_below(paths, sniff, result.skipped)
    result.links = links_of(files)
    for whole in a_unit_each(files):
        with left_out_if_bad(result, options):
            path = input_path(whole.path)
            places = [place for place, _ in _records(path, contents=False)]
            result.items = (result.items or 0) + len(places)
            if not places:
                continue
            _, first = next(_records(path))
            names = sorted(_features(first, path))
            columns = columns_of(names, options).for_kind(options.kind)
            need_columns(columns, names, path)
            size = len(places) if compression(path) else UNIT_PICTURES
            for start in range(0, len(places), size):
                stop = places[start + size] if start + size < len(places) else -1
                extra = {"columns": list(columns), "number": start}
                result.units.append(Unit(whole.path, whole.source, places[start], stop, extra))
    return result


def read(unit: Unit, options: Options) -> Iterator[Item]:
    """Yields one item a record.

    Raises:
      BadInput: the file is damaged.
    """
    path, columns = input_path(unit.path), Columns(*unit.extra["columns"])
    records = _records(path, unit.start, unit.stop)
    for number, (_, record) in enumerate(records, unit.extra["number"]):
        features = _features(record, path)
        image = next(iter(features.get(columns.image, ())), None)
        words = [decoded(value) for value in features.get(columns.caption, ()) if value]
        captions = tuple(text.strip() for text, _ in words if text and text.strip())
        documents = [decoded(value)[0] or "" for value in features.get(columns.document, ())]
        yield Item(
            f"{unit.stem}/{number:08d}",
            image,
            captions,
            text="" if image else "\n".join(documents),
            source=unit.source,
            repairs=tuple(repair for _, repair in words if repair),
            no_words=no_words(captions, words),
        )


def _records(
    path: pathlib.Path, start: int = 0, stop: int = -1, *, contents: bool = True
) -> Iterator[tuple[int, bytes]]:
    """Yields the records that begin in a range of bytes, with their places."""
    try:
        with opened(path) as file:
            file.seek(start)
            place = start
            while (stop < 0 or place < stop) and (head := file.read(HEAD)):
                length = _length(head)
                if length < 0:
                    raise BadInput(path, f"no record begins at byte {place}, where one should")
                content = file.read(length) if contents else b""
                _pass(file, length + TAIL - len(content))
                yield place, content
                place += HEAD + length + TAIL
    except DAMAGED as error:
        raise BadInput(path, f"cannot be read to its end ({error})") from error


def _pass(file: IO[bytes], count: int) -> None:
    """Skips bytes, of which the last must be there."""
    if count > 1:
        file.seek(count - 1, 1)
    if not file.read(1):
        raise EOFError("a record is cut off")


def _length(head: bytes) -> int:
    """Returns the length in the head of a record; -1 if its checksum is wrong."""
    if len(head) < HEAD:
        return -1
    length, check = struct.unpack("<QI", head)
    return length if _masked_crc32c(head[:8]) == check else -1


def _masked_crc32c(content: bytes) -> int:
    """Returns TFRecord's checksum: CRC-32C, rotated by 15 bits, plus a constant."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _features(record: bytes, path: pathlib.Path) -> dict[str, list[bytes]]:
    """Returns the features of a record that are bytes."""
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2

    example = cast(Any, tf_example_pb2).Example()
    try:
        example.ParseFromString(record)
    except DecodeError as error:
        raise BadInput(path, f"a record of it is no tf.train.Example ({error})") from error
    return {
        name: list(value.bytes_list.value)
        for name, value in example.features.feature.items()
        if value.HasField("bytes_list")
    }
