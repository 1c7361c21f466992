"""Command: trains the text tokenizer."""

import json
import resource
import sys

from absl import flags

from vlbeit_jax import cli
from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import place
from vlbeit_jax.prepare.text_tokenizer import train_text_tokenizer

OVERVIEW = """Trains a SentencePiece unigram tokenizer on the training parts of texts and pairs.

  python -m vlbeit_jax.text_tokenizer --data=data/wiki --data=data/cc3m --vocabulary=64000 \\
      --out=data/text_tokenizer

Without --vocabulary, the number of word pieces follows from the text: one for each character and
each 100 bytes. The same data and flags give the same word pieces. Memory and time grow with
--max_megabytes: 64,000 word pieces from 40 MB take about two minutes on two cores."""

FEWEST = 300  # Word pieces.
DATA = flags.DEFINE_multi_string(
    "data", None, "prepared data set of texts or pairs; may be repeated", required=True
)
OUT = flags.DEFINE_string("out", None, "folder to make", required=True)
VOCABULARY = flags.DEFINE_integer(
    "vocabulary",
    0,
    "number of word pieces, at least 300; 0: as many as the text supports, at most 64,000",
    lower_bound=0,
)
MAX_MEGABYTES = flags.DEFINE_float(
    "max_megabytes", 40, "largest sample of text to train on", lower_bound=0.001
)
COVERAGE = flags.DEFINE_float(
    "coverage",
    0.9995,
    "share of the characters that get a word piece of their own",
    lower_bound=0.98,  # As SentencePiece asks.
    upper_bound=1,
)
THREADS = flags.DEFINE_integer(
    "threads", 2, "threads of the trainer; another number may give other word pieces", lower_bound=1
)


def main() -> None:
    """Trains and prints the description."""
    if 0 < VOCABULARY.value < FEWEST:
        raise UsageError(
            f"--vocabulary={VOCABULARY.value}: must be at least {FEWEST}, because 256 pieces are "
            "bytes; leave it out, so that it follows from the text"
        )
    described = train_text_tokenizer(
        place(OUT.value, "--out"),
        DATA.value,
        VOCABULARY.value,
        round(MAX_MEGABYTES.value * 1e6),
        coverage=COVERAGE.value,
        threads=THREADS.value,
    )
    print(json.dumps(described, indent=1))
    # In kilobytes on Linux.
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(
        f"written to {OUT.value}: {described['vocabulary']:,} word pieces; {memory:,.0f} MB of "
        "memory at most",
        file=sys.stderr,
    )


if __name__ == "__main__":
    cli.run(main, OVERVIEW)
