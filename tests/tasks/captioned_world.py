"""Captions of the drawings of ``paired_world`` in a language whose words are single letters.

So captions have few word pieces, and a network learns to write them in seconds.
"""

from tests.make_data import build, train_tokenizer
from tests.tasks import paired_world
from tests.tasks.paired_world import NAMES, PLAIN, rows, write
from vlbeit_jax.config.finetune import CaptionStreamConfig
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.tasks.captioning import Captioning
from vlbeit_jax.types import Kind

PIECES, LENGTH = 295, 10  # As many pieces as the letters give.
MODEL = paired_world.MODEL | {"vocabulary": PIECES}
LETTERS = dict(zip(NAMES, "abcdefghijklmnop", strict=True)) | {
    "first": "x",
    "then": "y",
    "now": "z",
}


def lines(folder, **made):
    """Those of ``paired_world``, with "x a y i" in the place of "first red then navy"."""
    found = rows(folder, **made)
    for line in found:
        spelt = [[LETTERS[word] for word in caption.split()] for caption in line["captions"]]
        line["captions"] = [" ".join(words) for words in spelt]
    return found


def prepare(folder, **made):
    """A set of pairs."""
    folder.mkdir(exist_ok=True)
    path = write(folder / "pairs.jsonl", lines(folder, **made))
    build(folder / "pairs", Kind.PAIRS, [path], source_format="jsonl")
    return folder / "pairs"


def tokenizer_in(folder):
    """A text tokenizer that knows the letters."""
    texts = [{"text": f"{' '.join(line['captions'])} {i}"} for i, line in enumerate(lines(folder))]
    path = write(folder / "texts.jsonl", texts)
    build(folder / "texts", Kind.TEXTS, [path], source_format="jsonl")
    return train_tokenizer(folder, "tokenizer", [folder / "texts"], PIECES).folder


def captioning_task(sources, tokenizer, pair=None, **task):
    settings = PLAIN | {"text_length": LENGTH} | (pair or {})
    return Captioning(
        model=ModelConfig(**MODEL),
        pair=CaptionStreamConfig(sources=(str(sources),), **settings),
        text_tokenizer=str(tokenizer),
        **task,
    )
