"""Trains the text tokenizer: a SentencePiece unigram model.

SentencePiece's sampling of lines is not reproducible, even with a seed. So we sample lines by hash,
and the trainer sees them all.
"""

import hashlib
import heapq
import io
import json
import math
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import sentencepiece

from vlbeit_jax.data.source import TRAIN, PreparedSet, open_sets_once
from vlbeit_jax.data.text import DESCRIPTION_FILE, MODEL_FILE, piece_fingerprint
from vlbeit_jax.errors import UsageError
from vlbeit_jax.folders import published
from vlbeit_jax.progress import counted, waiting
from vlbeit_jax.types import Kind, Special

LINE_CHARACTERS = 1000
# A vocabulary that follows from the text has a piece for so many bytes, besides the specials, the
# bytes of the fallback and the characters; so most pieces occur several times.
BYTES, BYTES_PER_PIECE = 256, 100
LARGEST_VOCABULARY = 64_000  # That of VL-BEiT, as BEiT-3 states it.
# Scripts without spaces have signs of their own, behind which there is none.
SENTENCE_END = re.compile(r"(?<=[.!?;:])\s+|(?<=[。！？；：︒｡])")


def train_text_tokenizer(
    out: pathlib.Path,
    places: Sequence[str],
    vocabulary: int,
    max_bytes: int,
    *,
    coverage: float = 0.9995,
    threads: int = 2,
) -> dict[str, Any]:
    """Learns ``vocabulary`` unigram pieces from the training splits of prepared texts and pairs.

    The same data and options give the same pieces in the same order.

    Args:
      out: the folder to make.
      places: prepared sets with texts or captions.
      vocabulary: number of pieces, including the specials and the 256 bytes of the fallback; 0: as
        many as the text supports.
      max_bytes: largest sample of text; the trainer's memory grows with it.
      coverage: share of the characters that get pieces of their own; others become bytes.
      threads: of the trainer; another number may give other pieces.

    Returns:
      The description that was written: fingerprint, vocabulary, specials, sources.

    Raises:
      UsageError: a data set is missing or of the wrong kind, or the text is too small for the
        vocabulary.
    """
    sets = open_sets_once(places, Kind.TEXTS, Kind.PAIRS)
    records = (record for each in sets for record in _records(each))
    total = sum(each.count(TRAIN) for each in sets)
    lines = sample_lines(_lines(counted(records, "reading", "records", total)), max_bytes)
    with published(out) as folder:
        wanted = vocabulary or supported(lines)
        with waiting(f"learning {wanted:,} pieces from {len(lines):,} lines"):
            model = _train(lines, wanted, coverage, threads, exactly=bool(vocabulary))
        (folder / MODEL_FILE).write_bytes(model)
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        assert processor.piece_to_id("<mask>") == Special.MASK and vocabulary in (
            0,
            processor.get_piece_size(),
        )
        described = {
            "format": 1,
            "fingerprint": piece_fingerprint(processor),
            "vocabulary": processor.get_piece_size(),
            "specials": {special.name: int(special) for special in Special},
            "trained_on": [each.fingerprint for each in sets],
            "lines": len(lines),
            "bytes": sum(len(line.encode()) for line in lines),
        }
        (folder / DESCRIPTION_FILE).write_text(json.dumps(described, indent=1) + "\n")
    return described


def sample_lines(lines: Iterable[str], max_bytes: int) -> list[str]:
    """Returns lines up to ``max_bytes``: those with the smallest hashes, in that order.

    The result does not depend on the order of the lines. A line that alone exceeds the limit is
    kept.
    """
    kept: list[tuple[int, str]] = []
    size, cut = 0, 2**64
    for line in lines:
        order = int.from_bytes(hashlib.sha1(line.encode()).digest()[:8], "big")
        if order >= cut:
            continue
        heapq.heappush(kept, (-order, line))
        size += len(line.encode())
        while size > max_bytes and len(kept) > 1:
            thrown, out = heapq.heappop(kept)
            size, cut = size - len(out.encode()), -thrown
    return [line for _, line in sorted(kept, reverse=True)]


def supported(lines: Sequence[str]) -> int:
    """Returns how many pieces some text supports: its characters, and more the longer it is."""
    characters = {each for line in lines for each in unicodedata.normalize("NFKC", line)}
    size = sum(len(line.encode()) for line in lines)
    # SentencePiece normalises in a slightly different way, which can give a few more characters.
    least = len(Special) + BYTES + math.ceil(1.1 * len(characters)) + 16
    return max(least, min(least + size // BYTES_PER_PIECE, LARGEST_VOCABULARY))


def _records(prepared: PreparedSet) -> Iterator[Mapping[str, Any]]:
    return iter(prepared.records(TRAIN) if prepared.count(TRAIN) else ())


def _lines(records: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yields captions and sentences of documents, as lines of at most ``LINE_CHARACTERS``.

    The trainer silently skips lines of more than 4192 bytes.
    """
    for record in records:
        texts = (
            record["captions"]
            if "captions" in record
            else SENTENCE_END.split(record["text"].decode())
        )
        for text in texts:
            line = text.decode() if isinstance(text, bytes) else text
            for start in range(0, len(line), LINE_CHARACTERS):
                yield line[start : start + LINE_CHARACTERS]


def _train(
    lines: list[str], vocabulary: int, coverage: float, threads: int, exactly: bool
) -> bytes:
    """Returns a trained SentencePiece model; with fewer pieces if it may and must."""
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            # The trainer takes one sentence per line, so line breaks become spaces.
            sentence_iterator=(" ".join(line.split()) for line in lines),
            model_writer=model,
            model_type="unigram",
            vocab_size=vocabulary,
            hard_vocab_limit=exactly,
            character_coverage=coverage,
            byte_fallback=True,
            normalization_rule_name="nmt_nfkc",
            pad_id=int(Special.PAD),
            unk_id=int(Special.UNKNOWN),
            bos_id=int(Special.CLS),
            eos_id=int(Special.SEP),
            control_symbols=["<mask>"],
            input_sentence_size=0,  # All lines: ``sample_lines`` has chosen them.
            num_threads=threads,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UsageError(
            f"SentencePiece could not learn {vocabulary} pieces from {len(lines)} lines: {error}; "
            "leave out --vocabulary, so that it follows from the text, or give more --data"
        ) from error
    return model.getvalue()
