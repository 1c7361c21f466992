"""A fine-tuning with ``like_start`` has the network and the text tokenizer of its start."""

import contextlib
import dataclasses

import numpy as np
import pytest

from vlbeit_jax.config.networks import NOT_OF_THE_NETWORK, ModelConfig
from vlbeit_jax.config.parse import to_dict
from vlbeit_jax.config.schema import settings_of
from vlbeit_jax.errors import UsageError
from vlbeit_jax.folders import SAMPLE_FOLDER
from vlbeit_jax.runtime.run_folder import write_config
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.image_classification import ImageClassification
from vlbeit_jax.tasks.new_run import parse_run
from vlbeit_jax.tasks.pretrain import Pretrain
from vlbeit_jax.tasks.runs import read_network
from vlbeit_jax.tasks.text_classification import TextClassification
from vlbeit_jax.tasks.vqkd import VQKD
from vlbeit_jax.training.checkpoint import Checkpointer
from vlbeit_jax.types import Positions

START = ModelConfig(
    image_size=48,
    patch_size=12,
    width=20,
    heads=5,
    ffn_width=28,
    depth=3,
    fused_layers=1,
    text_positions=24,
    layer_scale=0.5,
    drop_path=0.3,
    norm_eps=1e-3,
    sub_norm=True,
    vocabulary=321,
    pad=1,
    codes=17,
    remat="full",
    matmul="float32",
)


def start(folder, task=None):
    folder.mkdir(exist_ok=True)
    write_config(folder, Config(task=task or Pretrain(model=START)))
    return folder


def values(folder, task=TextClassification, **model):
    given = ModelConfig(like_start=True, image_size=240, drop_path=0.2, **model)
    run = dataclasses.replace(Config().run, start_from=str(folder))
    return to_dict(Config(task=task(model=given), run=run))


def found(folder, workdir=None, **model):
    return parse_run(values(folder, **model), workdir=workdir, to_train=False).task


def test_the_network_is_that_of_the_start_and_its_use_is_not(tmp_path):
    model = found(start(tmp_path / "start")).model
    expected = {"image_size": 240, "drop_path": 0.2, "remat": "none", "matmul": "auto"}
    assert model == dataclasses.replace(START, **expected, like_start=True)
    # The control: every setting of the start's network differs from the default.
    same = {each.name for each in settings_of(START) if getattr(START, each.name) == each.default}
    assert same == {"positions", "decoupled", "scan", "attention", "like_start"}
    assert set(NOT_OF_THE_NETWORK) <= {each.name for each in settings_of(START)}
    other = dataclasses.replace(START, positions=Positions.RELATIVE, fused_layers=0, decoupled=True)
    model = found(start(tmp_path / "start", Pretrain(model=other)), text_positions=7).model
    assert (model.positions, model.decoupled) == (Positions.RELATIVE, True)
    assert model.text_positions == 24  # A relative table is for one length.
    assert (
        parse_run(values(tmp_path / "start", width=24, heads=2), to_train=False).task.model.width
        == 20
    )


def test_texts_may_be_shorter_than_those_of_the_start_and_not_longer(tmp_path):
    folder = start(tmp_path / "start")
    assert found(folder, text_positions=7).model.text_positions == 7
    assert found(folder, text_positions=25).model.text_positions == 24


def test_without_a_start_or_without_the_setting_nothing_is_taken(tmp_path):
    assert found("").model.width == 768
    folder = start(tmp_path / "start")
    given = values(folder)
    given["task"]["model"]["like_start"] = False
    assert parse_run(given, to_train=False).task.model.width == 768


def test_some_fields_are_enough_and_the_old_layout_is_named(tmp_path):
    folder = start(tmp_path / "start")
    some = {
        "task": {"kind": "text_classification", "model": {"like_start": True, "image_size": 48}},
        "run": {"start_from": str(folder)},
    }
    assert parse_run(some, to_train=False).task.model.text_positions == 24
    assert parse_run({}, to_train=False) == Config()
    with pytest.raises(UsageError, match=r"config\.task='pretrain' is a name, as in vlbeit_jax 0"):
        parse_run({"task": "pretrain", "run": {"start_from": str(folder)}}, to_train=False)


def test_an_empty_text_tokenizer_is_that_of_the_start(tmp_path):
    folder = start(tmp_path / "start")
    assert found(folder).text_tokenizer == ""  # An import may have none.
    (folder / "text_tokenizer").mkdir()
    assert found(folder).text_tokenizer == str(folder / "text_tokenizer")
    given = values(folder)
    given["task"]["text_tokenizer"] = "other"
    assert parse_run(given, to_train=False).task.text_tokenizer == "other"
    # A task without texts has no such setting.
    task = parse_run(values(folder, ImageClassification), to_train=False).task
    assert task.model.width == 20 and not hasattr(task, "text_tokenizer")


def test_a_run_with_a_checkpoint_keeps_its_network(tmp_path):
    """Its start may have changed, or be gone."""
    workdir, gone = start(tmp_path / "run"), tmp_path / "gone"
    other = start(tmp_path / "start", Pretrain(model=dataclasses.replace(START, width=40)))
    assert found(other, workdir).model.width == 40  # There is no checkpoint yet.
    with pytest.raises(UsageError, match=r"run\.start_from=.*gone is not the folder of a run"):
        found(gone, workdir)
    with contextlib.closing(Checkpointer(workdir / "checkpoints")) as checkpointer:
        checkpointer.save(1, {"params": {"a": np.zeros(2)}}, {})
    (workdir / "text_tokenizer").mkdir()
    for each in (other, gone):
        task = found(each, workdir)
        assert (task.model.width, task.text_tokenizer) == (20, str(workdir / "text_tokenizer"))


def test_a_start_without_this_network_is_refused(tmp_path):
    folder = start(tmp_path / "start", VQKD())
    with pytest.raises(UsageError, match="is a run of task 'vqkd', which has no Multiway"):
        found(folder)


def test_sample_is_the_model_in_the_package():
    packed = read_network(SAMPLE_FOLDER, "")[1]
    task = found("sample")
    assert task.model.width == packed.width and task.model.vocabulary == packed.vocabulary
    assert task.text_tokenizer == str(SAMPLE_FOLDER / "text_tokenizer")
