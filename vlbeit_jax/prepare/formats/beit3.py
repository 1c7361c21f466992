"""BEiT-3's index, JSON lines of image_path, text_segment and image_id, one row a caption.

A text_segment is a text, or the numbers of its pieces in BEiT-3's SentencePiece model, or null.
"""

import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import fetched, input_path
from vlbeit_jax.prepare.formats.base import Found, Options, Plan, Unit, a_unit_each, left_out_if_bad
from vlbeit_jax.prepare.formats.files import require_files
from vlbeit_jax.prepare.formats.index import BAD_LINE, Row, plan_rows, read_rows
from vlbeit_jax.prepare.formats.json_values import first_object
from vlbeit_jax.prepare.formats.lines import lines_of
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.types import Kind

KINDS = frozenset({Kind.IMAGES, Kind.PAIRS})
# XLM-RoBERTa's numbers, which BEiT-3 uses: four special pieces, then those of the model from its
# fourth on.
SPECIAL, SHIFT = 4, 1


def sniff(found: Found) -> bool:
    """Returns whether the first line of a file is an object with BEiT-3's fields."""
    return (
        not found.is_folder
        and {"image_path", "text_segment"} <= (first_object(found.head) or {}).keys()
    )


def plan(paths: Sequence[pathlib.Path], options: Options) -> Plan:
    """Finds the rows of each picture.

    Raises:
      UsageError: texts are numbers, and no model is given that knows them.
    """
    require_files(paths)
    result = Plan([])
    for whole in a_unit_each(paths):
        with left_out_if_bad(result, options):
            with input_path(whole.path).open("rb") as lines:
                first = next((line for line in lines if b'"text_segment": [' in line), None)
            if first is not None and not options.sentencepiece:
                raise UsageError(
                    f"{whole.path}: its texts are numbers of word pieces; give the model that was "
                    "used, which BEiT-3 publishes as beit3.spm: --sentencepiece=beit3.spm"
                )
            result.units += plan_rows(whole, _rows(options))
    return result


def read(unit: Unit, options: Options) -> Iterator[Item]:
    """Yields one item a picture, with all its captions."""
    return read_rows(unit, options, _rows(options))


def _rows(options: Options) -> Callable[..., Iterator[tuple[int, Row]]]:
    to_text = _decoder(options.sentencepiece)

    def rows(path: pathlib.Path, start: int, stop: int) -> Iterator[tuple[int, Row]]:
        for place, line in lines_of(path, start, stop):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                image, text = entry["image_path"], to_text(entry["text_segment"])
            except (ValueError, KeyError, TypeError, IndexError):
                yield place, Row(fault=BAD_LINE)
                continue
            captions = (text.strip(),) if text.strip() else ()
            yield place, Row((str(image),), captions, str(entry.get("image_id", image)))

    return rows


def _decoder(model: str) -> Callable[[Any], str]:
    """Returns the function from a text_segment to its text."""
    import sentencepiece

    processor = None
    if model:
        try:
            file = fetched(input_path(model))
            processor = sentencepiece.SentencePieceProcessor(model_file=str(file))
        except (OSError, RuntimeError) as error:
            raise UsageError(f"--sentencepiece={model}: cannot be read ({error})") from error

    def to_text(segment: Any) -> str:
        if isinstance(segment, str):
            return segment
        if isinstance(segment, Mapping):
            raise TypeError
        pieces = [number - SHIFT for number in segment or () if number >= SPECIAL]
        return processor.decode(pieces) if processor else ""

    return to_text
