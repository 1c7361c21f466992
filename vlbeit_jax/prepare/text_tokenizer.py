"""Trains the text tokenizer: SentencePiece, made deterministic by sampling lines with our own hash (spec section 0)."""

import hashlib
import heapq
import json
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sentencepiece

from vlbeit_jax.data.source import TRAIN, PreparedSet, open_set
from vlbeit_jax.data.text import DESCRIPTION_FILE, MODEL_FILE, piece_fingerprint
from vlbeit_jax.errors import UsageError
from vlbeit_jax.folders import published
from vlbeit_jax.types import Kind, Special

LINE_CHARACTERS = 1000
SENTENCE_END = re.compile(r"(?<=[.!?;:])\s+")


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

    The same data and options give the same pieces in the same order: lines are sampled by hash, and the trainer sees them
    all, in a fixed order, with a fixed number of threads.

    Args:
      out: the folder to make.
      places: prepared sets with texts or captions.
      vocabulary: number of pieces, specials and the 256 bytes of the fallback included.
      max_bytes: largest sample of text; the trainer's memory grows with it.
      coverage: share of the characters that get pieces of their own; the rest is spelt in bytes.
      threads: of the trainer; part of what must be equal for equal pieces.

    Returns:
      The description that was written: fingerprint, vocabulary, specials, sources.

    Raises:
      UsageError: a data set is missing or of the wrong kind, or the text is too small for the vocabulary.
    """
    sets = [open_set(place, Kind.TEXTS, Kind.PAIRS) for place in places]
    lines = sample_lines((line for found in sets for line in _lines(found)), max_bytes)
    with published(out) as folder:
        _train(folder, lines, vocabulary, coverage, threads)
        processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / MODEL_FILE))
        assert (
            processor.piece_to_id("<mask>") == Special.MASK
            and processor.get_piece_size() == vocabulary
        )
        described = {
            "format": 1,
            "fingerprint": piece_fingerprint(processor),
            "vocabulary": vocabulary,
            "specials": {special.name: int(special) for special in Special},
            "trained_on": [found.fingerprint for found in sets],
            "lines": len(lines),
            "bytes": sum(len(line.encode()) for line in lines),
        }
        (folder / DESCRIPTION_FILE).write_text(json.dumps(described, indent=1) + "\n")
    return described


def sample_lines(lines: Iterable[str], max_bytes: int) -> list[str]:
    """The lines with the smallest hashes, up to ``max_bytes``, in the order of their hashes.

    SentencePiece's own sampling is not reproducible, even with a seed; this one does not depend on the order of the lines.
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


def _lines(found: PreparedSet) -> Iterator[str]:
    """Captions and the sentences of documents, cut into lines that the trainer accepts (it skips those above 4192 bytes)."""
    if not found.count(TRAIN):
        return
    for record in found.records(TRAIN):
        texts = (
            record["captions"]
            if found.kind is Kind.PAIRS
            else SENTENCE_END.split(record["text"].decode())
        )
        for text in texts:
            line = text.decode() if isinstance(text, bytes) else text
            for start in range(0, len(line), LINE_CHARACTERS):
                yield line[start : start + LINE_CHARACTERS]


def _train(
    folder: pathlib.Path, lines: list[str], vocabulary: int, coverage: float, threads: int
) -> None:
    """Runs the trainer inside ``folder`` with relative names, because the model file embeds them."""
    sample, here = folder / "sample.txt", pathlib.Path.cwd()
    sample.write_text("\n".join(" ".join(line.split()) for line in lines) + "\n")
    os.chdir(folder)
    try:
        sentencepiece.SentencePieceTrainer.train(
            input=sample.name,
            model_prefix=pathlib.Path(MODEL_FILE).stem,
            model_type="unigram",
            vocab_size=vocabulary,
            character_coverage=coverage,
            byte_fallback=True,
            normalization_rule_name="nmt_nfkc",
            pad_id=int(Special.PAD),
            unk_id=int(Special.UNKNOWN),
            bos_id=int(Special.CLS),
            eos_id=int(Special.SEP),
            control_symbols=["<mask>"],
            input_sentence_size=0,
            num_threads=threads,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UsageError(
            f"SentencePiece could not learn {vocabulary} pieces from {len(lines)} lines: {error}"
        ) from error
    finally:
        os.chdir(here)
    sample.unlink()
    (folder / MODEL_FILE).with_suffix(".vocab").unlink()
