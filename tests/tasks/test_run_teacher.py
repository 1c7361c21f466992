"""A run as VQ-KD's teacher: its targets, their mean, and visual tokens made from them."""

import dataclasses

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from tests.convert.conftest import write_random_run
from tests.models import tiny_models
from tests.models.published_weights import vlmo_weights
from tests.models.test_parity import TOLERANCE, as_float, distance
from tests.references import vlbeit as reference
from vlbeit_jax.data.source import open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.teacher import PixelTeacher, RunTeacher
from vlbeit_jax.objectives.distillation import TARGET_MEAN, Distillation
from vlbeit_jax.runtime.start import train
from vlbeit_jax.tasks import teachers
from vlbeit_jax.tasks.visual_tokens import keep_copy, open_visual_tokens

IMAGES = 4


def expected_targets(config, params, image, blocks):
    """In float64: states after the last norm, or the mean of plainly normalised ones."""
    weights = vlmo_weights(params, config)
    if blocks == 1:
        found = [reference.states(weights, tiny_models.reference_net(config), as_float(image))]
    else:
        plain = weights | {
            "norm.weight": np.ones(config.width),
            "norm.bias": np.zeros(config.width),
        }
        nets = [
            tiny_models.reference_net(config, depth=config.depth - above) for above in range(blocks)
        ]
        found = [reference.states(plain, net, as_float(image)) for net in nets]
    return np.mean(found, axis=0)[:, 1:]


@pytest.mark.parametrize("blocks", [1, 2])
def test_targets_are_the_states_of_patches(blocks):
    config = tiny_models.model_config()
    params, image = tiny_models.random_params(config, 1.0), tiny_models.images(config)
    found = jax.jit(RunTeacher(config, blocks).targets)(params, image)
    expected = expected_targets(config, params, image, blocks)
    assert found.shape == (len(image), config.patches, config.width)
    assert distance(found, expected) < TOLERANCE
    other = expected_targets(config, params, image, 3 - blocks)
    assert distance(found, other) > 1e-2


def test_the_mean_target_is_subtracted():
    config, network = tiny_models.tokenizer_config(), tiny_models.model_config()
    config = dataclasses.replace(config, teacher="run", teacher_width=network.width)
    teacher, frozen = RunTeacher(network, 1), tiny_models.random_params(network)
    tokenizer, params, codebook = tiny_models.random_tokenizer(config, network.width)
    objective = Distillation(tokenizer, teacher, IMAGES)
    mean = np.random.default_rng(0).normal(size=network.width).astype(np.float32)
    model_state = objective.init_model_state() | {"codebook": codebook, TARGET_MEAN: mean}
    image = tiny_models.images(config, batch=IMAGES)
    batch = {"image": image, "weight": jnp.array([1.0, 1, 0, 1])}
    terms, statistics = jax.jit(objective.losses, static_argnums=4)(
        params, model_state, frozen, batch, None
    )
    predicted = jax.jit(lambda p: tokenizer.apply({"params": p}, image, codebook)[2])(params)
    targets = np.asarray(jax.jit(teacher.targets)(frozen, image), np.float64)
    kept = np.array([0, 1, 3])
    loss, _ = reference.distillation(
        np.asarray(predicted, np.float64)[kept], targets[kept] - mean, np.zeros(1), np.zeros(1)
    )
    found = terms["distillation"]
    assert float(found.loss / found.weight) == pytest.approx(loss, rel=1e-4)
    without, _ = reference.distillation(
        np.asarray(predicted, np.float64)[kept], targets[kept], np.zeros(1), np.zeros(1)
    )
    assert float(found.loss / found.weight) != pytest.approx(without, rel=1e-2)
    after, _ = objective.update(model_state, statistics)
    np.testing.assert_array_equal(after[TARGET_MEAN], mean)


def pixels_of(encoded):
    return cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


@pytest.fixture(scope="module")
def run(world, tmp_path_factory):
    """A pretraining run with random parameters."""
    config = tiny.pretrain_config(world, steps=1)
    return write_random_run(tmp_path_factory.mktemp("teacher") / "run", config, world)


def config_towards(run, world, **model):
    teacher = {"teacher": "run", "teacher_weights": str(run), "teacher_width": 32} | model
    config = tiny.vqkd_config(world, steps=2, checkpoint_every=2, evaluate_every=2)
    # Whole images, so that the mean of the first batches is that of all records.
    image = {"crop_scale": 1.0, "flip": 0.0}
    return tiny.changed(config, task={"model": teacher, "image": image})


@pytest.mark.slow
def test_a_run_teaches_visual_tokens(world, run, tmp_path):
    config = config_towards(run, world)
    state = train(config, tmp_path / "vqkd")
    lines = tiny.metrics_of(tmp_path / "vqkd")
    assert lines[-1]["split"] == "validation" and 0 < lines[-1]["distillation/loss"] < 2
    image = state.model_state["image"]

    # The mean is that of the targets of all images, by other code than that of the start.
    teacher = teachers.read_teacher(config.task.model)
    frozen = teachers.restore_teacher(config.task.model, teacher)
    records = open_set(str(world.pairs)).records("train")
    pixels = np.stack([pixels_of(records[index]["image"]) for index in range(len(records))])
    targets = np.asarray(jax.jit(teacher.targets)(frozen, pixels))
    off = np.linalg.norm(image[TARGET_MEAN] - targets.mean(axis=(0, 1)))
    assert off < 0.1 * np.linalg.norm(targets.mean(axis=(0, 1)))
    other = np.linalg.norm(image[TARGET_MEAN] - targets[0].mean(axis=0))
    assert off < other / 2

    # Pretraining opens the tokens and keeps a copy of them, with the mean.
    tokens = open_visual_tokens(tmp_path / "vqkd")
    np.testing.assert_array_equal(tokens.frozen["codebook"], image["codebook"])
    np.testing.assert_array_equal(
        tokens.saved["model_state"]["image"][TARGET_MEAN], image[TARGET_MEAN]
    )
    keep_copy(tokens, tmp_path / "copy")
    assert open_visual_tokens(tmp_path / "copy").fingerprint == tokens.fingerprint


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"teacher_weights": ""}, "needs task.model.teacher_weights: the folder of a run"),
        ({"teacher_weights": "nowhere"}, "teacher_weights=nowhere is not the folder of a run"),
        ({"teacher_width": 0}, "is 32 wide; set config.task.model.teacher_width=32"),
        ({"teacher_blocks": 3}, "teacher_blocks=3, but the network .* has 2 blocks"),
        ({"image_size": 64}, "image_size is 32, needed is 64"),
    ],
)
def test_runs_that_cannot_teach_are_refused(world, run, model, said):
    visual = config_towards(run, world, **model).task.model
    with pytest.raises(UsageError, match=said):
        teachers.read_teacher(visual)


def test_a_visual_tokenizer_cannot_teach(world):
    visual = config_towards(world.vqkd, world).task.model
    with pytest.raises(UsageError, match="task 'vqkd', which has no Multiway Transformer"):
        teachers.read_teacher(visual)


def test_a_teacher_of_pixels_has_no_mean():
    config = tiny_models.tokenizer_config()
    teacher = PixelTeacher(config.patch_size)
    network, *_ = tiny_models.random_tokenizer(config, teacher.width)
    assert set(Distillation(network, teacher, IMAGES).init_model_state()) == {"codebook", "use"}
