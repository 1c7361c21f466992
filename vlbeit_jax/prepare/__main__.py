"""Command: prepares data sets for training and evaluation."""

import dataclasses
import json
import sys
from typing import Any

from absl import flags

from vlbeit_jax import cli
from vlbeit_jax.data.identity import SPLITS
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import place
from vlbeit_jax.prepare import beam
from vlbeit_jax.prepare.build import build_set
from vlbeit_jax.prepare.decide import REMOVE, REPORT, Wishes
from vlbeit_jax.prepare.describe import in_short
from vlbeit_jax.prepare.fitting import Fits
from vlbeit_jax.prepare.formats import FORMATS
from vlbeit_jax.prepare.formats.base import Options
from vlbeit_jax.prepare.formats.detect import AUTO
from vlbeit_jax.prepare.held_out import with_larger_share
from vlbeit_jax.prepare.pack import pack_texts
from vlbeit_jax.prepare.pictures import Limits
from vlbeit_jax.prepare.planning import Source, part_range
from vlbeit_jax.types import Kind

OVERVIEW = """Prepares a data set: checks each item, counts drops by reason, splits, writes shards.

  python -m vlbeit_jax.prepare --kind=pairs --input=pictures --out=data/pairs
  python -m vlbeit_jax.prepare --kind=pairs --input='cc3m/*.tar' --out=data/cc3m
  python -m vlbeit_jax.prepare --kind=texts --input=wiki.txt --out=data/wiki
  python -m vlbeit_jax.prepare --kind=tokens --input=data/wiki \\
      --text_tokenizer=data/text_tokenizer --length=128 --out=data/tokens
  python -m vlbeit_jax.prepare --kind=labelled_images --format=jsonl --input=birds.jsonl \\
      --out=data/birds
  python -m vlbeit_jax.prepare --kind=questions --format=vqav2 --input=VQAv2 --out=data/vqav2
  python -m vlbeit_jax.prepare --kind=masks --format=ade20k --input=ADEChallengeData2016 \\
      --out=data/ade20k

The formats ade20k, imagenet, karpathy, nlvr2, tfds, vqav2 and vqav2-trainval read published
benchmarks as they are (docs/published_benchmarks.md). If a command was stopped, run it again: it
keeps the finished parts, which are in OUT.work (docs/data.md).

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
    AUTO,
    [AUTO, *sorted(FORMATS)],
    "format of the input (not for tokens); auto: recognised by its content",
)
INPUT = flags.DEFINE_multi_string(
    "input",
    None,
    "file, folder or pattern, as in a*.tar, {0000..0009}.tar and **/*.jpg; may be repeated; for "
    "tokens: prepared texts",
    required=True,
)
flags.DEFINE_string(
    "images", "", "folder that paths in an index are relative to; empty: that of the index"
)
flags.DEFINE_string(
    "image_column", "", "column of the pictures, in a table where it is not recognised"
)
flags.DEFINE_string(
    "caption_column", "", "column of the captions or texts, in a table where it is not recognised"
)
flags.DEFINE_string(
    "sentencepiece", "", "SentencePiece model of texts that are stored as numbers of pieces"
)
flags.DEFINE_enum(
    "documents",
    "",
    ["", "line", "blank_line"],
    "where a document of a text file ends; empty: at blank lines, if the file has any",
)
flags.DEFINE_bool("force", False, "read the input as --format says, whatever it looks like")
OUT = flags.DEFINE_string("out", None, "folder to make", required=True)
flags.DEFINE_string(
    "classes",
    "",
    "labelled and masks: file with the names of the classes, one a line, in the order of the "
    "head's outputs; empty: the names in the input, sorted; of masks, the numbers",
)
SPLITS_READ = flags.DEFINE_list(
    "splits",
    [],
    f"formats of published benchmarks: splits to read, of {', '.join(SPLITS)}; empty: all",
)
SHARDS = flags.DEFINE_integer(
    "shards", 0, "shards (files) per split; 0: as many as give about 256 MB each", lower_bound=0
)
WORKERS = flags.DEFINE_integer(
    "workers", -1, "worker processes; -1: one per core, if there are parts for them; 0: none", -1
)
RANGE = flags.DEFINE_string(
    "part_range",
    "",
    "I:J: make only the parts from I up to, but not including, J, while other machines make the "
    "others in the same --out; the machine that makes the last part completes the set",
)
flags.DEFINE_alias("shard_range", "part_range")  # An older name.
RUNNER = flags.DEFINE_string(
    "runner",
    "",
    "runner of Apache Beam that writes the parts, such as DataflowRunner, FlinkRunner or "
    "DirectRunner; empty: processes of this machine",
)
BEAM_OPTIONS = flags.DEFINE_string(
    "beam_options", "", "options of Beam and its runner, as one text: '--name=value --name=value'"
)
flags.DEFINE_enum(
    "bad_inputs",
    "stop",
    ["stop", "skip"],
    "at a damaged input file: stop, and keep what is finished, or leave the file out and name it",
)
flags.DEFINE_bool(
    "deduplicate",
    False,
    "images, pairs, texts: merge byte-equal pictures, whose captions are joined, or equal texts; "
    "otherwise they are counted",
)
flags.DEFINE_enum(
    "near_duplicates",
    "",
    ["", REPORT, REMOVE],
    "images, pairs: count, or remove, pictures that look like one before them, or like one on the "
    "other side of the split in a set of --apart_from",
)
VALIDATION = flags.DEFINE_float(
    "validation_share",
    0.1,
    "share of the pictures (texts: of the documents) that a hash holds out; larger in a small "
    "set, of which it would hold out hardly any",
    lower_bound=0,
    upper_bound=1,
)
APART = flags.DEFINE_multi_string(
    "apart_from",
    [],
    "prepared set that this one will be used with; may be repeated; records that are on the other "
    "side of the split there are left out here",
)
flags.DEFINE_float(
    "max_dropped",
    0.1,
    "stop if a larger share of the items cannot be used; a wrong line of jsonl always stops",
    lower_bound=0,
    upper_bound=1,
)
flags.DEFINE_string("licence", "", "licence of the data, kept in the description")
flags.DEFINE_integer(
    "min_side", Limits.min_side, "images: shorter side in pixels, at least", lower_bound=1
)
flags.DEFINE_integer(
    "max_pixels", Limits.max_pixels, "images: height x width in pixels, at most", lower_bound=1
)
flags.DEFINE_integer(
    "max_bytes", Limits.max_bytes, "images: size of the file, at most", lower_bound=1
)
flags.DEFINE_float(
    "max_aspect", Limits.max_aspect, "images: longer over shorter side, at most", lower_bound=1
)
flags.DEFINE_integer(
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
    kind = Kind(KIND.value)
    out = place(OUT.value, "--out")
    engine = beam.engine(RUNNER.value, BEAM_OPTIONS.value)
    if kind is Kind.TOKENS:
        if engine:
            raise UsageError("--runner is for other kinds: packing texts takes one process")
        if not TOKENIZER.value:
            raise UsageError("--kind=tokens needs --text_tokenizer")
        if APART.value:
            raise UsageError(
                "--apart_from is for texts, before they are packed: give it where the --input of "
                "--kind=tokens is made"
            )
        tokenizer, shards = TextTokenizer(TOKENIZER.value), SHARDS.value or 1
        meta = pack_texts(out, INPUT.value, tokenizer, LENGTH.value, shards, WORKERS.value)
    else:
        fits = None
        if TOKENIZER.value:
            if kind is not Kind.PAIRS:
                raise UsageError(f"--text_tokenizer is for tokens and pairs, but --kind={kind}")
            fits = Fits(TextTokenizer(TOKENIZER.value), LENGTH.value)
        if strange := [name for name in SPLITS_READ.value if name not in SPLITS]:
            raise UsageError(f"--splits={strange[0]}: choose among {', '.join(SPLITS)}")
        given: dict[str, Any] = {**_given(Source), "kind": kind}
        source = Source(
            **given,
            source_format=FORMAT.value,
            inputs=INPUT.value,
            options=Options(**_given(Options) | {"splits": tuple(SPLITS_READ.value), "kind": ""}),
            limits=Limits(**_given(Limits)),
            fits=fits,
        )
        meta = with_larger_share(
            lambda share, fewest: build_set(
                out,
                dataclasses.replace(source, validation_share=share),
                Wishes(**_given(Wishes), fewest=fewest),
                part_range(RANGE.value),
                engine,
            ),
            VALIDATION.value,
        )
        if not meta:
            return
        if (share := meta["options"]["validation_share"]) != VALIDATION.value:
            print(
                f"--validation_share={VALIDATION.value:g} would hold out hardly any of these few "
                f"records, so it is {share:g} here: {meta['counts']}",
                file=sys.stderr,
            )
    print(json.dumps(meta, indent=1))
    print(f"written to {out}: {in_short(meta)}", file=sys.stderr)


def _given(form: type) -> dict[str, Any]:
    """Returns the values of the flags that have the names of a class's fields."""
    names = [field.name for field in dataclasses.fields(form) if field.name in flags.FLAGS]
    return {name: flags.FLAGS[name].value for name in names}


if __name__ == "__main__":
    cli.run(main, OVERVIEW)
