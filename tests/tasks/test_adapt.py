"""Pretraining that starts from another run or an import: what is kept, adapted and fresh."""

import contextlib
import dataclasses
import json

import jax
import numpy as np
import pytest

from tests import tiny
from tests.test_config import config_file
from vlbeit_jax.errors import UsageError
from vlbeit_jax.runtime.run_folder import write_config
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.assets import check_start_tokenizers
from vlbeit_jax.tasks.new_run import parse_run
from vlbeit_jax.tasks.pretrain import Pretrain
from vlbeit_jax.training.checkpoint import Checkpointer
from vlbeit_jax.training.start_from import Start
from vlbeit_jax.training.state import declarations
from vlbeit_jax.types import Positions

SMALL = dataclasses.replace(tiny.SMALL, codes=16)
WORDS = ("text_embed/words", "language_head/*")
CODES = ("vision_head/*",)
FORMS = {
    "an earlier run": SMALL,
    "beit, beit2, vlmo": dataclasses.replace(SMALL, positions=Positions.RELATIVE),
    "beit3": dataclasses.replace(
        SMALL, decoupled=True, sub_norm=True, fused_layers=0, norm_eps=1e-5, pad=1
    ),
}


def start_in(folder, model, must_match=None):
    """A run or import without values: only names and shapes are looked at."""
    folder.mkdir()
    write_config(folder, Config(task=Pretrain(model=model)))
    shapes = declarations(Pretrain(model=model).init).shapes
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    description = {} if must_match is None else {"must_match": must_match}
    with contextlib.closing(Checkpointer(folder / "checkpoints")) as checkpointer:
        checkpointer.save(1, {"params": zeros}, description)
    return folder


def adapted(start, fresh=(), **model):
    """The task of configs/adapt.py that starts there."""
    values = config_file(tiny.TOP / "configs/adapt.py").to_dict()
    values["run"]["start_from"] = str(start)
    values["task"]["model"] |= {"drop_path": 0.0, "image_size": 16} | model
    values["task"] |= {"fresh": fresh, "text_tokenizer": "T", "visual_tokenizer": "V"}
    for name in ("image", "text", "pair"):
        values["task"][name] |= {"sources": ("somewhere",), "batch_size": 8}
    values["task"]["text"]["text_length"] = values["task"]["pair"]["text_length"] = 8
    for name in ("image", "pair"):
        values["task"][name] |= {"num_masked_patches": 2, "mask_block": 1}
    return parse_run(values).task


def opened(start, task):
    return Start.open(start, declarations(task.init).shapes, task.warm_start())


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_start_gives_all_but_the_tokens_of_new_tokenizers(tmp_path, form):
    folder = start_in(tmp_path / "start", FORMS[form])
    if FORMS[form].pad:
        with pytest.raises(UsageError, match=r"model\.pad=1 must be 0(.|\n)*text_embed/words"):
            adapted(folder)
    task = adapted(folder, WORDS + CODES, vocabulary=300, codes=24)
    assert (task.model.vocabulary, task.model.codes, task.model.pad) == (300, 24, 0)
    kept = ("width", "depth", "positions", "decoupled", "sub_norm", "norm_eps", "fused_layers")
    assert all(getattr(task.model, name) == getattr(FORMS[form], name) for name in kept)
    start = opened(folder, task)
    heads = [
        f"{name}_head/{part}" for name in ("language", "vision") for part in ("bias", "kernel")
    ]
    assert start.fresh == sorted([*heads, "text_embed/words"])
    assert start.report()["dropped"] == start.fresh and start.report()["adapted"] == {}


def test_other_tokens_without_saying_so_are_a_mistake(tmp_path):
    folder = start_in(tmp_path / "start", SMALL)
    task = dataclasses.replace(adapted(folder), model=dataclasses.replace(SMALL, codes=24))
    with pytest.raises(UsageError, match=r"vision_head/kernel: \(16, 16\) there, \(16, 24\) here"):
        opened(folder, task)


def test_larger_images_and_shorter_texts_adapt_positions(tmp_path):
    folder = start_in(tmp_path / "start", SMALL)
    task = adapted(folder, image_size=32, text_positions=8)
    assert (task.model.image_size, task.model.text_positions) == (32, 8)
    assert opened(folder, task).report()["adapted"] == {
        "vision_embed/positions": {"from": [5, 16], "to": [17, 16], "by": "resize_positions"}
    }


def test_kept_tokens_need_the_same_tokenizer(tmp_path):
    folder = start_in(tmp_path / "start", SMALL, {"visual_tokenizer": "a", "task.kind": "pretrain"})
    kept = ["encoder/norm/scale", "vision_head/bias", "vision_head/kernel"]
    check_start_tokenizers(folder, {"visual_tokenizer": "a"}, kept)
    check_start_tokenizers(folder, {"visual_tokenizer": "b"}, kept[:1])
    with pytest.raises(UsageError, match="with visual tokenizer a(.|\n)*vision_head/bias, vision"):
        check_start_tokenizers(folder, {"visual_tokenizer": "b"}, kept)
    # An import does not tell what its codes mean.
    imported = start_in(tmp_path / "import", SMALL)
    check_start_tokenizers(imported, {"visual_tokenizer": "b"}, kept)


def test_tokenizers_that_are_not_named_are_those_of_the_start(tmp_path):
    folder = start_in(tmp_path / "start", SMALL)
    values = json.loads((folder / "config.json").read_text())
    values["run"]["start_from"] = str(folder)
    values["task"]["model"]["like_start"] = True
    for name in ("text_tokenizer", "visual_tokenizer"):
        (folder / name).mkdir()
    task = parse_run(values, to_train=False).task
    assert task.text_tokenizer == str(folder / "text_tokenizer")
    assert task.visual_tokenizer == str(folder / "visual_tokenizer")


def test_what_is_left_open_is_that_of_the_start(tmp_path):
    folder = start_in(tmp_path / "start", SMALL)
    saved = json.loads((folder / "config.json").read_text())
    saved["task"]["image"] |= {"num_masked_patches": 3, "mask_block": 2}
    (folder / "config.json").write_text(json.dumps(saved))
    values = config_file(tiny.TOP / "configs/adapt.py").to_dict()
    values["run"]["start_from"] = str(folder)

    def image(**model):
        given = values["task"] | {"model": values["task"]["model"] | model}
        task = parse_run(values | {"task": given}, to_train=False).task
        return task.model.image_size, task.image.num_masked_patches, task.image.mask_block

    assert image() == (SMALL.image_size, 3, 2)
    # Masks of another grid follow from that grid: 26 of 64 patches.
    assert image(image_size=64) == (64, 26, 5)
