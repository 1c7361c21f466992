"""Questions and captions about drawings that are easy to see, and configurations of seconds."""

import json

import numpy as np

from tests import tiny
from tests.make_data import build, train_tokenizer
from vlbeit_jax.config.common import OptimizerConfig, RunConfig
from vlbeit_jax.config.finetune import PairedStreamConfig
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.retrieval import Retrieval
from vlbeit_jax.tasks.vqa import VQATask
from vlbeit_jax.types import Kind

TRAINED, NEW, PIECES, SIDE = 64, 64, 300, 32
COLOURS = {
    "red": (230, 20, 20), "green": (20, 200, 30), "blue": (20, 40, 230), "yellow": (240, 230, 30),
    "black": (10, 10, 10), "white": (245, 245, 245), "pink": (240, 120, 200), "grey": (120,) * 3,
}  # fmt: skip
NAMES = tuple(COLOURS)
WORDINGS = {
    "train": ("{} {}", "first {} then {}"),
    "validation": ("{} then {}", "{} {} now"),
    "test": ("{} first {}", "first {} {}"),
}
PLAIN = {
    "rand_augment": "none",
    "crop_scale": 0.9,
    "flip": 0.0,
    "batch_size": 32,
    "text_length": 16,
}
MODEL = {
    "image_size": SIDE, "patch_size": 8, "width": 32, "depth": 2, "heads": 4, "ffn_width": 64,
    "fused_layers": 1, "text_positions": 16, "vocabulary": PIECES, "drop_path": 0.0,
}  # fmt: skip


def two_colours(rng, left, right):
    """A picture of two halves, with some noise, so that no two are equal."""
    image = np.empty((SIDE, SIDE, 3))
    image[:, : SIDE // 2], image[:, SIDE // 2 :] = COLOURS[left], COLOURS[right]
    return tiny.png(np.clip(image + rng.normal(size=image.shape) * 8, 0, 255).astype(np.uint8))


def rows(folder, seed=0, permute=False, people=1):
    """64 training records with all pairs of 8 colours, and as many new ones.

    Each has a question about one half, whose answer depends on the picture and on the question, and
    two captions that name both colours. ``permute`` gives training records those of others.
    """
    rng, lines = np.random.default_rng(seed), []
    for number in range(TRAINED + NEW):
        left, right = NAMES[number % 8], NAMES[number // 8 % 8]
        (folder / f"{seed}_{number}.png").write_bytes(two_colours(rng, left, right))
        side = str(rng.choice(["left", "right"]))
        answer = left if side == "left" else right
        lines.append({
            "id": f"{seed}/{number}", "image": f"{seed}_{number}.png",
            "split": "train" if number < TRAINED else "test",
            "text": f"what is {side}?", "answers": [answer] * people,
            "captions": [form.format(left, right) for form in WORDINGS["train"]],
        })  # fmt: skip
    if permute:
        for line, other in zip(lines[:TRAINED], rng.permutation(TRAINED), strict=True):
            line |= {name: lines[other][name] for name in ("answers", "captions")}
    # Validation is what evaluation during training sees.
    for line in lines[TRAINED : TRAINED + NEW // 4]:
        line["split"] = "validation"
    # No text is in two splits.
    for line, number in zip(lines[TRAINED:], range(TRAINED, TRAINED + NEW), strict=True):
        names = NAMES[number % 8], NAMES[number // 8 % 8]
        line["captions"] = [form.format(*names) for form in WORDINGS[line["split"]]]
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


def config(task, steps, optimizer=None, **run):
    run = {
        "steps": steps, "log_every": steps, "evaluate_every": steps, "checkpoint_every": steps,
        "evaluate_batches": 0, "compilation_cache": "",
    } | run  # fmt: skip
    settings = {"peak_lr": 4e-3, "warmup_steps": 5, "clip_norm": 1.0} | (optimizer or {})
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
