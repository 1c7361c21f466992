"""BEiT-3's word pieces as a text tokenizer of this package, and its tables in our order.

BEiT-3 numbers the pieces of its SentencePiece file as fairseq's XLM-R does: CLS 0, padding 1,
SEP 2, unknown 3, then the file's pieces from its fourth on, and the mask after the last one. Our
tokenizers have fixed numbers for these five (``types.Special``), and the same pieces after them. A
unigram model cuts a text by its pieces and their scores, so that their order does not change the
cut.
"""

import json
import pathlib
from typing import Any, NamedTuple

import numpy as np
import sentencepiece
from google.protobuf.message import DecodeError
from sentencepiece import sentencepiece_model_pb2

from vlbeit_jax.convert.read_tensors import TensorFile
from vlbeit_jax.data.text import DESCRIPTION_FILE, MODEL_FILE, piece_fingerprint
from vlbeit_jax.errors import UsageError
from vlbeit_jax.shapes import Int
from vlbeit_jax.tasks.assets import TEXT_TOKENIZER
from vlbeit_jax.types import Special

TABLES = ("beit3.text_embed.weight", "mlm_head.weight", "mlm_head.bias")  # A row for each piece.
THEIRS = ("<unk>", "<s>", "</s>")  # The first pieces of BEiT-3's file.
OURS = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")  # By ``Special``.
NUMBERS = {Special.PAD: 1, Special.UNKNOWN: 3, Special.CLS: 0, Special.SEP: 2}
proto: Any = sentencepiece_model_pb2  # Its classes exist at run time only.
SHIFT = 1  # From a piece's number in BEiT-3's file to its row.


class Words(NamedTuple):
    """A text tokenizer of BEiT-3, in our order.

    Attributes:
      model: the content of our SentencePiece file.
      rows: of BEiT-3's tables, in the order of our pieces.
    """

    model: bytes
    rows: Int[np.ndarray, " V"]

    def save(self, run: pathlib.Path) -> None:
        """Writes the tokenizer into the folder of a run."""
        folder = run / TEXT_TOKENIZER
        folder.mkdir()
        processor = sentencepiece.SentencePieceProcessor(model_proto=self.model)
        (folder / MODEL_FILE).write_bytes(self.model)
        described = {
            "format": 1,
            "fingerprint": piece_fingerprint(processor),
            "vocabulary": processor.get_piece_size(),
            "specials": {special.name: int(special) for special in Special},
            "imported_from": "BEiT-3",
        }
        (folder / DESCRIPTION_FILE).write_text(json.dumps(described, indent=1) + "\n")

    def reorder(self, file: TensorFile) -> TensorFile:
        """Returns a file whose tables have one row for each of our pieces.

        Raises:
          UsageError: a table has fewer rows than the tokenizer has pieces.
        """
        tensors = dict(file.tensors)
        for name in TABLES:
            if name not in tensors:
                continue
            have, need = len(tensors[name]), int(self.rows.max()) + 1
            if have < need:
                raise UsageError(
                    f"{name} has {have} rows, but the text tokenizer needs {need}; give the "
                    "SentencePiece file that the model was trained with"
                )
            tensors[name] = tensors[name][self.rows]
        return file.changed(
            tensors,
            f"the {len(self.rows)} rows of word pieces are in the order of our text tokenizers; "
            "further rows, which no text can have, are left out",
        )


def read_words(path: pathlib.Path) -> Words:
    """Reads BEiT-3's SentencePiece file (``beit3.spm``).

    Raises:
      UsageError: it cannot be read, is no unigram model, or does not begin with <unk>, <s>, </s>.
    """
    model = proto.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except OSError as error:
        raise UsageError(f"--text_tokenizer={path}: cannot be read ({error})") from error
    except DecodeError as error:
        raise UsageError(f"--text_tokenizer={path}: no SentencePiece file ({error})") from error
    first = tuple(each.piece for each in model.pieces[: len(THEIRS)])
    if first != THEIRS or model.trainer_spec.model_type != proto.TrainerSpec.UNIGRAM:
        raise UsageError(
            f"--text_tokenizer={path}: not BEiT-3's file, which is a unigram model and begins with "
            f"{', '.join(THEIRS)}; this one begins with {', '.join(first) or 'nothing'}"
        )
    count = len(model.pieces)
    numbers = {**NUMBERS, Special.MASK: count + SHIFT}
    pieces = range(len(THEIRS), count)
    rows = [numbers[special] for special in Special] + [each + SHIFT for each in pieces]
    return Words(_in_our_order(model), np.array(rows))


def _in_our_order(model: Any) -> bytes:
    ours = proto.ModelProto()
    ours.CopyFrom(model)
    del ours.pieces[:]
    kind = proto.ModelProto.SentencePiece
    for special, piece in zip(Special, OURS, strict=True):
        type_of = kind.UNKNOWN if special is Special.UNKNOWN else kind.CONTROL
        ours.pieces.add(piece=piece, score=0.0, type=type_of)
    ours.pieces.extend(model.pieces[len(THEIRS) :])
    spec = ours.trainer_spec
    spec.vocab_size = len(ours.pieces)
    spec.pad_id, spec.unk_id = int(Special.PAD), int(Special.UNKNOWN)
    spec.bos_id, spec.eos_id = int(Special.CLS), int(Special.SEP)
    spec.pad_piece, spec.unk_piece, spec.bos_piece, spec.eos_piece = OURS[:4]
    return ours.SerializeToString()
