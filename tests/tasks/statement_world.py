"""Statements about two pictures of one colour each: true or false at a glance."""

import numpy as np

from tests import tiny
from tests.make_data import build
from tests.tasks.paired_world import ABOVE, MODEL, NEW, PLAIN, SIDE, TRAINED, write
from vlbeit_jax.config.finetune import PairedStreamConfig
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.tasks.visual_reasoning import VisualReasoning
from vlbeit_jax.types import Kind

COLOURS = ("red", "green", "blue", "yellow")
PLACES = ("first", "then")  # Words that the tokenizer of ``paired_world`` knows.


def one_colour(rng, name):
    """A picture with some noise, so that no two are equal."""
    image = ABOVE[name] + rng.normal(size=(SIDE, SIDE, 3)) * 8
    return tiny.png(np.clip(image, 0, 255).astype(np.uint8))


def rows(folder, seed=0, permute=False):
    """64 training records and as many new ones.

    A statement names the colour of the first or of the second picture, so it has to be read with
    the right one of both. Half of the statements are true. ``permute`` gives training records the
    truth of others.
    """
    rng, lines = np.random.default_rng(seed), []
    for number in range(TRAINED + NEW):
        split = "train" if number < TRAINED else "test"
        # Validation is what evaluation during training sees.
        split = "validation" if TRAINED <= number < TRAINED + NEW // 4 else split
        place, said = number % 2, COLOURS[number // 2 % 4]
        truth = bool(number // 8 % 2)
        shown = [str(rng.choice(COLOURS)), str(rng.choice(COLOURS))]
        shown[place] = (
            said if truth else str(rng.choice([each for each in COLOURS if each != said]))
        )
        names = [f"{seed}_{number}_{each}.png" for each in (0, 1)]
        for name, colour in zip(names, shown, strict=True):
            (folder / name).write_bytes(one_colour(rng, colour))
        lines.append(
            {
                "id": f"{seed}/{number}",
                "images": names,
                "split": split,
                "text": f"{PLACES[place]} {said}",
                "truth": truth,
            }
        )
    if permute:
        truths = rng.permutation([line["truth"] for line in lines[:TRAINED]])
        for line, truth in zip(lines, truths, strict=False):
            line["truth"] = bool(truth)
    return lines


def prepare(folder, **made):
    folder.mkdir(exist_ok=True)
    path = write(folder / "statements.jsonl", rows(folder, **made))
    build(folder / "statements", Kind.STATEMENTS, [path], source_format="jsonl")
    return folder / "statements"


def reasoning_task(sources, tokenizer, statement=None, **task):
    return VisualReasoning(
        model=ModelConfig(**MODEL),
        statement=PairedStreamConfig(sources=(str(sources),), **PLAIN | (statement or {})),
        text_tokenizer=str(tokenizer),
        **task,
    )
