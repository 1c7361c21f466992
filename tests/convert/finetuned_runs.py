"""Fine-tuned runs with random parameters, and sets that they are evaluated on."""

import json

import numpy as np

from tests import tiny
from tests.convert.random_runs import random_tree
from tests.make_data import build
from tests.tasks.paired_world import ABOVE, BELOW, SIDE, two_colours
from vlbeit_jax.config.common import RunConfig
from vlbeit_jax.config.finetune import (
    CaptionStreamConfig,
    LabelledImagesConfig,
    LabelledTextsConfig,
    MasksConfig,
    PairedStreamConfig,
)
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.convert.source import as_tree, tree_shapes
from vlbeit_jax.data.masks import indexed_png
from vlbeit_jax.data.splits import NOTHING_SEEN, write_seen
from vlbeit_jax.runtime.run_folder import write_config
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.captioning import Captioning
from vlbeit_jax.tasks.image_classification import ImageClassification
from vlbeit_jax.tasks.retrieval import Retrieval
from vlbeit_jax.tasks.segmentation import Segmentation
from vlbeit_jax.tasks.text_classification import TextClassification
from vlbeit_jax.tasks.visual_reasoning import VisualReasoning
from vlbeit_jax.tasks.vqa import VQATask
from vlbeit_jax.training.checkpoint import Checkpointer
from vlbeit_jax.types import Kind

ROWS = 24
LABELS = ("one", "two", "three", "four", "five", "señal")
MODEL = {
    "image_size": 32,
    "patch_size": 8,
    "width": 32,
    "depth": 2,
    "heads": 4,
    "ffn_width": 48,
    "fused_layers": 1,
    "text_positions": 16,
    "vocabulary": tiny.PIECES,
    "layer_scale": 0.1,
}
KINDS = {
    "image_classification": Kind.LABELLED_IMAGES,
    "text_classification": Kind.LABELLED_TEXTS,
    "vqa": Kind.QUESTIONS,
    "visual_reasoning": Kind.STATEMENTS,
    "retrieval": Kind.PAIRS,
    "captioning": Kind.PAIRS,
    "segmentation": Kind.MASKS,
}


def rows(folder):
    """Lines that serve every kind: several captions, ten answers that people disagree on."""
    rng = np.random.default_rng(0)
    for number in range(ROWS):
        above, below = str(rng.choice(list(ABOVE))), str(rng.choice(list(BELOW)))
        (folder / f"{number}.png").write_bytes(two_colours(rng, above, below))
        mask = np.random.default_rng(number).choice([0, 1, 3, 255], (SIDE, SIDE)).astype(np.uint8)
        (folder / f"{number}_mask.png").write_bytes(indexed_png(mask))
        answers = [str(rng.choice([above, below, "The Red", "two", "yes"])) for _ in range(10)]
        if number % 4 == 0:
            answers = ["yes"] * 9 + ["2"]
        yield {
            "image": f"{number}.png",
            "mask": f"{number}_mask.png",
            "images": [f"{number}.png", f"{(number + 3) % ROWS}.png"],  # Of one split.
            "truth": bool(np.random.default_rng(number).integers(2)),
            "split": "test" if number % 3 else "train",
            "text": f"what is number {number} {above}?",
            "captions": [f"{above} on {below} {number} {each}" for each in range(1 + number % 3)],
            "answers": answers,
            "label": LABELS[number % 6],
        }


def sets_in(folder):
    """Folders of prepared sets, by task."""
    folder.mkdir()
    lines = list(rows(folder))
    # Some statements have two records.
    judged = [row | {"text": f"both show {i // 2}"} for i, row in enumerate(lines)]
    for kind in {*KINDS.values()}:
        path = folder / f"{kind}.jsonl"
        found = judged if kind is Kind.STATEMENTS else lines
        path.write_text("".join(json.dumps(row) + "\n" for row in found))
        build(folder / kind, kind, [path], source_format="jsonl")
    return {task: folder / kind for task, kind in KINDS.items()}


def task_of(name, source, tokenizer, **changes):
    """A task on a set; ``model`` among the changes changes fields of its model."""
    model = ModelConfig(**MODEL | changes.pop("model", {}))
    sources, tokenizer = (str(source),), {"text_tokenizer": str(tokenizer)}
    paired = PairedStreamConfig(sources=sources, text_length=12, batch_size=8)
    if name == "image_classification":
        images = LabelledImagesConfig(sources=sources, batch_size=8)
        return ImageClassification(model=model, **{"image": images} | changes)
    if name == "text_classification":
        text = LabelledTextsConfig(sources=sources, text_length=12, batch_size=8)
        return TextClassification(model=model, text=text, **tokenizer, **changes)
    if name == "vqa":
        answers = {"answers_least": 1}
        return VQATask(model=model, question=paired, **tokenizer, **answers | changes)
    if name == "visual_reasoning":
        return VisualReasoning(model=model, statement=paired, **tokenizer, **changes)
    if name == "segmentation":
        settings = {"pools": (1, 2), "head_width": 16} | changes
        view = settings.pop("view", "whole")
        masks = MasksConfig(sources=sources, batch_size=8, view=view)
        return Segmentation(model=model, image=masks, **settings)
    if name == "captioning":
        captions = CaptionStreamConfig(sources=sources, text_length=12, batch_size=8)
        return Captioning(model=model, pair=captions, **tokenizer, **changes)
    return Retrieval(model=model, pair=paired, **tokenizer, **changes)


def write_run(folder, task):
    """A finished run with random parameters, and with other random ones as their average."""
    opened = task.resolve().open()
    folder.mkdir(parents=True)
    write_config(folder, Config(task=task, run=RunConfig(steps=3)))
    opened.save_assets(folder)
    write_seen(folder, NOTHING_SEEN)
    shapes = tree_shapes(opened.abstract_params())
    trees = {
        name: as_tree(random_tree(shapes, seed)) for seed, name in enumerate(("params", "ema"))
    }
    if moved := opened.abstract_model_state():
        # Variances are above 0; large ones keep the logits near 1.
        trees["model_state"] = as_tree(
            {name: 12 * np.exp(leaf) for name, leaf in random_tree(tree_shapes(moved), 2).items()}
        )
    checkpointer = Checkpointer(folder / "checkpoints")
    checkpointer.save(3, trees, {"trained_on": [], "step": 3})
    checkpointer.close()
    return folder
