"""PyTorch's steps of fine-tuning agree with JAX's, and the comparison notices what differs."""

import dataclasses

import numpy as np
import pytest

from tests import tiny
from tests.test_torch_peer import compared, parts
from tools.torch_peer import classification, compare, train_step
from tools.torch_peer.peer import peer_of
from tools.torch_peer.weights import arrays_of
from vlbeit_jax.config.common import OptimizerConfig, RunConfig
from vlbeit_jax.config.finetune import (
    LabelledImagesConfig,
    LabelledTextsConfig,
    PairedStreamConfig,
)
from vlbeit_jax.convert.rules import export
from vlbeit_jax.errors import UsageError
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.image_classification import ImageClassification
from vlbeit_jax.tasks.retrieval import Retrieval
from vlbeit_jax.tasks.text_classification import TextClassification
from vlbeit_jax.tasks.vqa import VQATask

MODEL = dataclasses.replace(tiny.SMALL, text_positions=12, vocabulary=50)
IMAGES = LabelledImagesConfig(batch_size=8, mixup=0.0, cutmix=0.0, erase=0.0)
TASKS = {
    "images": ImageClassification(model=MODEL, classes=5, smoothing=0.2, image=IMAGES),
    "texts": TextClassification(
        model=MODEL,
        classes=3,
        smoothing=0.0,
        pool="mean",
        text=LabelledTextsConfig(batch_size=8, text_length=12),
    ),
    "questions": VQATask(
        model=MODEL, answer_count=7, question=PairedStreamConfig(batch_size=8, text_length=12)
    ),
}


def config_of(name, **optimizer):
    given = {"peak_lr": 1e-3, "warmup_steps": 1, "layer_decay": 0.5, "head_factor": 4.0} | optimizer
    return Config(task=TASKS[name], optimizer=OptimizerConfig(**given), run=RunConfig(steps=10))


@pytest.mark.parametrize("name", TASKS)
def test_losses_and_gradients_agree(name):
    found = compared(config_of(name))
    assert found["agrees"], found["first_step"]
    assert all(each["relative"] < 1e-5 for each in found["first_step"].values())
    loss = "answer/loss" if name == "questions" else "class/loss"
    assert set(found["first_step"]) == {loss, "grad_norm"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(each, marks=() if each == "images" else pytest.mark.slow) for each in TASKS],
)
def test_parameters_stay_the_same_with_a_rate_for_each_layer(name):
    config = config_of(name, weight_decay=2.0)
    step, state, frozen, batches = parts(config)
    before = arrays_of(state.params)
    peer = train_step.TorchStep(config, state.params, frozen, 3)
    for _ in range(3):
        state, metrics = step(state, frozen, batches)
        theirs = peer({stream: peer.batch(rows) for stream, rows in batches.items()})
    for metric in theirs:
        np.testing.assert_allclose(metrics[metric], theirs[metric], rtol=1e-4, err_msg=metric)
    table = peer_of(config).build(config, {}, peer.dtype).table
    ours, old = export(table, arrays_of(state.params)), export(table, before)
    for tensor, value in peer.model.state_dict().items():
        moved = np.abs(ours[tensor] - old[tensor]).max()
        np.testing.assert_allclose(value.numpy(), ours[tensor], atol=2e-2 * moved, err_msg=tensor)


# PyTorch's own compiler uses what PyTorch deprecates.
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_the_compiled_step_is_one_graph_and_agrees(name):
    found = compared(config_of(name), "torch-compiled")
    assert found["agrees"] and "torch.compile" in found["peer"]


def test_another_loss_does_not_agree(monkeypatch):
    task = dataclasses.replace(TASKS["images"], smoothing=0.1)
    build = classification.build
    other = dataclasses.replace(config_of("images"), task=task)
    monkeypatch.setattr(classification, "build", lambda _, *rest: build(other, *rest))
    assert not compared(config_of("images"))["agrees"]


def test_what_draws_random_numbers_or_has_no_step_is_refused_by_name():
    mixed = dataclasses.replace(
        TASKS["images"], image=LabelledImagesConfig(batch_size=8, mixup=0.8, cutmix=0.0)
    )
    with pytest.raises(UsageError, match=r"set --config\.task\.image\.mixup=0\.0"):
        compare.check_comparable(Config(task=mixed))
    with pytest.raises(UsageError, match=r"task\.kind=retrieval; PyTorch has a step for pretrain"):
        compare.check_comparable(Config(task=Retrieval(model=MODEL)))


@pytest.mark.slow
def test_the_command_compares_a_fine_tuning(tmp_path):
    file = tiny.config_file(config_of("questions"), tmp_path)
    done = tiny.command("tools.torch_peer", f"--config={file}", "--steps=2", "--warmup=1")
    assert done.returncode == 0, done.stderr
    assert '"answer/loss"' in done.stdout
