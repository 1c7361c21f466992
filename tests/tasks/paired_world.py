"""Questions and captions about drawings that are easy to see, and configurations of seconds."""

import json

import numpy as np

from tests import tiny
from tests.convert.conftest import write_random_run
from tests.make_data import build, train_tokenizer
from vlbeit_jax.config.common import OptimizerConfig, RunConfig
from vlbeit_jax.config.finetune import PairedStreamConfig
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.pretrain import Pretrain
from vlbeit_jax.tasks.retrieval import Retrieval
from vlbeit_jax.tasks.vqa import VQATask
from vlbeit_jax.types import Kind

TRAINED, NEW, PIECES, SIDE = 64, 64, 300, 32
ABOVE = {
    "red": (230, 20, 20),
    "green": (20, 200, 30),
    "blue": (20, 40, 230),
    "yellow": (240, 230, 30),
    "black": (10, 10, 10),
    "white": (245, 245, 245),
    "pink": (240, 120, 200),
    "grey": (120,) * 3,
}
BELOW = {
    "navy": (10, 10, 90),
    "teal": (0, 130, 130),
    "lime": (160, 250, 60),
    "plum": (140, 30, 140),
    "rust": (170, 70, 20),
    "gold": (210, 160, 20),
    "sand": (230, 210, 160),
    "cyan": (60, 240, 250),
}
NAMES = (*ABOVE, *BELOW)
WORDINGS = {  # No text is in two splits.
    "train": ("{} {}", "first {} then {}"),
    "validation": ("{} then {}", "{} {} now"),
    "test": ("{} first {}", "first {} {}"),
}
PLAIN = {
    "rand_augment": "none",
    "crop_scale": 1.0,
    "flip": 0.0,
    "batch_size": 32,
    "text_length": 24,
}
MODEL = {
    "image_size": SIDE,
    "patch_size": 8,
    "width": 32,
    "depth": 2,
    "heads": 4,
    "ffn_width": 64,
    "fused_layers": 1,
    "text_positions": 24,
    "vocabulary": PIECES,
    "drop_path": 0.0,
    "layer_scale": 0.0,
}


def two_colours(rng, above, below):
    """A picture of two halves, with some noise, so that no two are equal."""
    image = np.empty((SIDE, SIDE, 3))
    image[: SIDE // 2], image[SIDE // 2 :] = ABOVE[above], BELOW[below]
    return tiny.png(np.clip(image + rng.normal(size=image.shape) * 8, 0, 255).astype(np.uint8))


def rows(folder, seed=0, permute=False, people=1):
    """64 training records with all pairs of 8 and 8 colours, and as many new ones.

    Each has a question about one half, whose answer depends on the picture and on the question, and
    two captions that name both colours. ``permute`` gives training records those of others.
    """
    rng, lines = np.random.default_rng(seed), []
    for number in range(TRAINED + NEW):
        split = "train" if number < TRAINED else "test"
        # Validation is what evaluation during training sees.
        split = "validation" if TRAINED <= number < TRAINED + NEW // 4 else split
        above, below = tuple(ABOVE)[number % 8], tuple(BELOW)[number // 8 % 8]
        (folder / f"{seed}_{number}.png").write_bytes(two_colours(rng, above, below))
        half = str(rng.choice(["above", "below"]))
        answer = above if half == "above" else below
        lines.append(
            {
                "id": f"{seed}/{number}",
                "image": f"{seed}_{number}.png",
                "split": split,
                "text": f"what is {half}?",
                "answers": [answer] * people,
                "captions": [form.format(above, below) for form in WORDINGS[split]],
            }
        )
    if permute:
        others = [dict(line) for line in lines[:TRAINED]]
        for line, other in zip(lines, rng.permutation(TRAINED), strict=False):
            line |= {name: others[other][name] for name in ("answers", "captions")}
    return lines


def write(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def prepare(folder, kind, **made):
    folder.mkdir(exist_ok=True)
    path = write(folder / f"{kind}.jsonl", rows(folder, **made))
    build(folder / kind, kind, [path], source_format="jsonl")
    return folder / kind


def tokenizer_in(folder):
    """A text tokenizer that knows the words."""
    texts = [
        {"text": f"{line['captions'][1]} {line['text']} {i}"} for i, line in enumerate(rows(folder))
    ]
    build(
        folder / "texts", Kind.TEXTS, [write(folder / "texts.jsonl", texts)], source_format="jsonl"
    )
    return train_tokenizer(folder, "tokenizer", [folder / "texts"], PIECES).folder


def start_in(folder, model=MODEL):
    """An untrained start with weights of usual size, from which tiny networks learn quickly.

    BEiT's initial values are for wide networks: at width 32 they keep a signal of a hundredth.
    """
    task = Pretrain(model=ModelConfig(**model, codes=8))
    return write_random_run(folder / "start", Config(task=task, run=RunConfig(steps=1)))


def config(task, steps, optimizer=None, **run):
    run = {
        "steps": steps,
        "log_every": steps,
        "evaluate_every": steps,
        "checkpoint_every": steps,
        "evaluate_batches": 0,
    } | run
    settings = {"peak_lr": 2e-3, "warmup_steps": 10, "weight_decay": 0.0, "clip_norm": 1.0} | (
        optimizer or {}
    )
    return Config(task=task, run=RunConfig(**run), optimizer=OptimizerConfig(**settings))


def vqa_task(sources, tokenizer, question=None, **task):
    return VQATask(
        model=ModelConfig(**MODEL),
        question=PairedStreamConfig(sources=(str(sources),), **PLAIN | (question or {})),
        text_tokenizer=str(tokenizer),
        **{"answers_least": 1} | task,
    )


def retrieval_task(sources, tokenizer, pair=None, **task):
    return Retrieval(
        model=ModelConfig(**MODEL),
        pair=PairedStreamConfig(sources=(str(sources),), **PLAIN | (pair or {})),
        text_tokenizer=str(tokenizer),
        **task,
    )
