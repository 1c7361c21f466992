"""Labelled pictures and texts whose class is easy to see, and configurations of seconds."""

import json

import numpy as np

from tests import tiny
from tests.make_data import build, train_tokenizer
from vlbeit_jax.config.common import OptimizerConfig, RunConfig
from vlbeit_jax.config.finetune import LabelledImagesConfig, LabelledTextsConfig
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.image_classification import ImageClassification
from vlbeit_jax.tasks.text_classification import TextClassification
from vlbeit_jax.types import Kind

TRAINED, NEW = 64, 64  # Training records, records of the test split.
NAMES = sorted(tiny.COLOURS)
PIECES = 300
PLAIN = {"rand_augment": "none", "erase": 0.0, "mixup": 0.0, "cutmix": 0.0, "crop_scale": 0.6}
MODEL = {
    "patch_size": 8,
    "width": 32,
    "depth": 2,
    "heads": 4,
    "ffn_width": 64,
    "fused_layers": 1,
    "text_positions": 16,
    "vocabulary": PIECES,
    "drop_path": 0.0,
}


def rows(folder, count=TRAINED + NEW, seed=0, permute=False):
    """Lines with a picture, a text and a label: the colour, or in training another one."""
    rng, lines, drawn = np.random.default_rng(seed), [], set()
    while len(lines) < count:
        number = len(lines)
        colour, shape = NAMES[number % len(NAMES)], str(rng.choice(tiny.SHAPES))
        picture = tiny.png(tiny.drawing(rng, shape, tiny.COLOURS[colour]))
        if picture in drawn:
            continue
        drawn.add(picture)
        (folder / f"{seed}_{number}.png").write_bytes(picture)
        split = "train" if number < TRAINED else "test"
        # Permuted: each colour has each label equally often, so that it tells nothing.
        label = NAMES[number // 4 % 4] if permute and split == "train" else colour
        lines.append(
            {
                "id": f"{seed}/{number}",
                "image": f"{seed}_{number}.png",
                "split": split,
                "text": f"{number}{seed} {colour} {shape}",
                "label": label,
            }
        )
    # Validation is what evaluation during training sees.
    for line in lines[TRAINED : TRAINED + NEW // 4]:
        line["split"] = "validation"
    return lines


def write(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def prepare(folder, name, kind, **made):
    folder.mkdir(exist_ok=True)
    path = write(folder / f"{name}.jsonl", rows(folder, **made))
    build(folder / name, kind, [path], source_format="jsonl")
    return folder / name


def run_config(steps, **run):
    return RunConfig(
        **{
            "steps": steps,
            "log_every": steps,
            "evaluate_every": steps,
            "checkpoint_every": steps,
            "evaluate_batches": 0,
        }
        | run
    )


def image_config(sources, steps=60, image_size=32, optimizer=None, run=None, **image):
    task = ImageClassification(
        model=ModelConfig(image_size=image_size, **MODEL),
        smoothing=0.0,
        image=LabelledImagesConfig(sources=(str(sources),), **{"batch_size": 32} | PLAIN | image),
    )
    settings = {"peak_lr": 4e-3, "warmup_steps": 5, "clip_norm": 1.0} | (optimizer or {})
    return Config(
        task=task, run=run_config(steps, **run or {}), optimizer=OptimizerConfig(**settings)
    )


def text_config(sources, tokenizer, steps=100):
    task = TextClassification(
        model=ModelConfig(image_size=16, **MODEL),
        smoothing=0.0,
        text=LabelledTextsConfig(sources=(str(sources),), batch_size=32, text_length=16),
        text_tokenizer=str(tokenizer),
    )
    return Config(
        task=task,
        run=run_config(steps),
        optimizer=OptimizerConfig(peak_lr=4e-3, warmup_steps=5, clip_norm=1.0),
    )


def tokenizer_in(folder):
    """A text tokenizer that knows the words of the texts."""
    path = write(folder / "words.jsonl", rows(folder, seed=9))
    build(folder / "words", Kind.TEXTS, [path], source_format="jsonl")
    return train_tokenizer(folder, "tokenizer", [folder / "words"], PIECES).folder
