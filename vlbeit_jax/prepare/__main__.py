"""Command: prepares data sets for training and evaluation."""

import json
import pathlib
import sys
from typing import Any

from absl import flags

from vlbeit_jax import cli
from vlbeit_jax.data.identity import SPLITS
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.build import build_set, pack_texts
from vlbeit_jax.prepare.check import Limits
from vlbeit_jax.prepare.fitting import Fits
from vlbeit_jax.prepare.formats import FORMATS
from vlbeit_jax.prepare.held_back import with_larger_share
from vlbeit_jax.types import Kind

OVERVIEW = """Prepares a data set: checks each item, counts drops by reason, splits, writes shards.

  python -m vlbeit_jax.prepare --kind=pairs --format=folder --input=pictures --out=data/pairs
  python -m vlbeit_jax.prepare --kind=pairs --format=webdataset --input='cc3m/*.tar' --out=data/cc3m
  python -m vlbeit_jax.prepare --kind=images --format=webdataset --input='cc3m/*.tar' \\
      --out=data/cc3m-images
  python -m vlbeit_jax.prepare --kind=texts --format=text --input=wiki.txt --out=data/wiki
  python -m vlbeit_jax.prepare --kind=tokens --input=data/wiki \\
      --text_tokenizer=data/text-tokenizer --length=128 --out=data/wiki-128
  python -m vlbeit_jax.prepare --kind=labelled_images --format=jsonl --input=birds.jsonl \\
      --out=data/birds
  python -m vlbeit_jax.prepare --kind=questions --format=vqav2 --input=VQAv2 --out=data/vqav2
  python -m vlbeit_jax.prepare --kind=masks --format=ade20k --input=ADEChallengeData2016 \\
      --out=data/ade20k

The formats ade20k, imagenet, karpathy, nlvr2, tfds, vqav2 and vqav2-trainval read published
benchmarks as they are (docs/published_benchmarks.md).

tfds.builder_from_directory opens the folder. vlbeit_meta.json in it describes the set."""

KIND = flags.DEFINE_enum(
    "kind",
    None,
    [str(kind) for kind in Kind],
    "what a record holds; pairs: an image and its captions; tokens: texts packed into full rows; "
    "questions: an image, a question and its answers; statements: two images, and a statement that "
    "is true or false of them; masks: an image and a picture with the number of each pixel's class",
    required=True,
)
FORMAT = flags.DEFINE_enum(
    "format",
    None,
    sorted(FORMATS),
    "format of the input (not for tokens); folder: pictures, each with its caption in a .txt file "
    "of the same name; nlvr2: the published files of this benchmark",
)
INPUT = flags.DEFINE_multi_string(
    "input",
    None,
    "file or glob pattern; may be repeated; for --format=ade20k, folder, imagenet, nlvr2, tfds "
    "and vqav2: a folder; for tokens: prepared texts",
    required=True,
)
OUT = flags.DEFINE_string("out", None, "folder to make", required=True)
CLASSES = flags.DEFINE_string(
    "classes",
    "",
    "labelled and masks: file with the names of the classes, one a line, in the order of the "
    "head's outputs; empty: the names in the input, sorted; of masks, the numbers",
)
PARTS = flags.DEFINE_list(
    "splits",
    [],
    f"formats of published benchmarks: parts to read, of {', '.join(SPLITS)}; empty: all",
)
SHARDS = flags.DEFINE_integer(
    "shards", 1, "files per split (aim at 128-512 MB each)", lower_bound=1
)
VALIDATION = flags.DEFINE_float(
    "validation_share",
    0.1,
    "share of the pictures (texts: of the documents) that a hash holds back; larger in a small "
    "set, of which it would hold back hardly any",
    lower_bound=0,
    upper_bound=1,
)
APART = flags.DEFINE_multi_string(
    "apart_from",
    [],
    "prepared set that this one will be used with; may be repeated; what one set holds back is "
    "left out of the other's training part",
)
MAX_DROPPED = flags.DEFINE_float(
    "max_dropped",
    0.1,
    "stop if a larger share of the items cannot be used; a wrong line of jsonl always stops",
    lower_bound=0,
    upper_bound=1,
)
LICENCE = flags.DEFINE_string("licence", "", "licence of the data, kept in the description")
MIN_SIDE = flags.DEFINE_integer(
    "min_side", Limits.min_side, "images: shorter side in pixels, at least", lower_bound=1
)
MAX_PIXELS = flags.DEFINE_integer(
    "max_pixels", Limits.max_pixels, "images: height x width in pixels, at most", lower_bound=1
)
MAX_ASPECT = flags.DEFINE_float(
    "max_aspect", Limits.max_aspect, "images: longer over shorter side, at most", lower_bound=1
)
SHORT_SIDE = flags.DEFINE_integer(
    "short_side",
    0,
    "images: shorter side in pixels to which larger ones are re-encoded; 0: keep files as they are",
    lower_bound=0,
)
TOKENIZER = flags.DEFINE_string(
    "text_tokenizer",
    None,
    "folder made by vlbeit_jax.text_tokenizer; tokens: cuts texts into word pieces; pairs: if it "
    "is given, a caption of more than --length pieces is a fault",
)
LENGTH = flags.DEFINE_integer(
    "length",
    128,
    "tokens: word pieces per row; pairs: word pieces of a caption at most; CLS and SEP included",
    lower_bound=3,
)


def main() -> None:
    """Prepares what the flags ask for and prints its description."""
    kind, out = Kind(KIND.value), pathlib.Path(OUT.value)
    if kind is Kind.TOKENS:
        if not TOKENIZER.value:
            raise UsageError("--kind=tokens needs --text_tokenizer")
        if APART.value:
            raise UsageError(
                "--apart_from is for texts, before they are packed: give it where the --input of "
                "--kind=tokens is made"
            )
        meta = pack_texts(
            out, INPUT.value, TextTokenizer(TOKENIZER.value), LENGTH.value, SHARDS.value
        )
    else:
        if not FORMAT.value:
            raise UsageError(f"--kind={kind} needs --format, one of {', '.join(sorted(FORMATS))}")
        source_format: str = FORMAT.value
        options = {}
        if TOKENIZER.value:
            if kind is not Kind.PAIRS:
                raise UsageError(f"--text_tokenizer is for tokens and pairs, but --kind={kind}")
            options = {"fits": Fits(TextTokenizer(TOKENIZER.value), LENGTH.value)}
        if strange := [name for name in PARTS.value if name not in SPLITS]:
            raise UsageError(f"--splits={strange[0]}: choose among {', '.join(SPLITS)}")
        limits = Limits(MIN_SIDE.value, MAX_PIXELS.value, MAX_ASPECT.value, SHORT_SIDE.value)
        meta = with_larger_share(
            lambda share, fewest: build_set(
                out,
                kind,
                source_format,
                INPUT.value,
                validation_share=share,
                max_dropped=MAX_DROPPED.value,
                limits=limits,
                fewest=fewest,
                shards=SHARDS.value,
                licence=LICENCE.value,
                apart_from=APART.value,
                classes=CLASSES.value,
                splits=PARTS.value,
                **options,
            ),
            VALIDATION.value,
        )
        if (share := meta["options"]["validation_share"]) != VALIDATION.value:
            print(
                f"--validation_share={VALIDATION.value:g} would hold back hardly any of these few "
                f"records, so it is {share:g} here: {meta['counts']}",
                file=sys.stderr,
            )
    print(json.dumps(meta, indent=1))
    print(f"written to {out}: {_in_short(meta)}", file=sys.stderr)


def _in_short(meta: dict[str, Any]) -> str:
    """Returns the counts of a description, for those who do not read all of it."""
    counts = meta["counts"]
    splits = ", ".join(f"{split} {count:,}" for split, count in counts.items())
    unused = sum(sum(meta.get(name, {}).values()) for name in ("dropped", "left_out"))
    return f"{sum(counts.values()):,} {meta['kind']} ({splits}); {unused:,} not used"


if __name__ == "__main__":
    cli.run(main, OVERVIEW)
