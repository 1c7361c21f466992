"""Outputs and gradients of the networks equal those of ``reference``, written independently."""

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from tests.models import tiny_models as tiny
from tests.models.published_weights import vlmo_weights, vqkd_weights
from tests.references import vlbeit as reference
from vlbeit_jax.models.teacher import PixelTeacher
from vlbeit_jax.objectives.distillation import Distillation
from vlbeit_jax.types import Modality, Positions

TOLERANCE = 2e-5  # of the largest output; float32 against float64
GRADIENT_TOLERANCE = (
    5e-5  # of the root of the summed squares of what is added up in a directional derivative
)
STEP = 1e-4  # of central differences, along a direction of unit length

every_stream = pytest.mark.parametrize("stream", tiny.STREAMS)
every_scheme = pytest.mark.parametrize("positions", tiny.POSITIONS)


def distance(found, expected):
    """Largest difference, relative to the largest expected value; infinities must be the same."""
    found, finite = np.asarray(found, np.float64), np.isfinite(expected)
    if found.shape != expected.shape or not (np.isfinite(found) == finite).all():
        return np.inf
    return np.abs(found[finite] - expected[finite]).max() / np.abs(expected[finite]).max()


def as_float(image):
    return np.asarray(image, np.float64) / 127.5 - 1


def reference_outputs(config, weights, batch, **changes):
    """Final states of all tokens, and the logits at the masked positions of each modality."""
    arguments = {}
    if batch.image is not None:
        masked = np.zeros((len(batch.image), config.patches), bool)
        np.put_along_axis(masked, np.asarray(batch.masked_patches), True, 1)
        arguments |= {"image": as_float(batch.image), "masked": masked}
    if batch.text is not None:
        text = np.asarray(batch.text)
        arguments |= {
            "ids": text,
            "valid": np.arange(text.shape[1]) < np.array(tiny.LENGTHS)[:, None],
        }
    found = reference.vlbeit(weights, tiny.reference_net(config, **changes), **arguments)
    outputs = {"states": found["states"]}
    if batch.image is not None:
        outputs[Modality.VISION] = np.take_along_axis(
            found["image"], np.asarray(batch.masked_patches)[..., None], 1
        )
    if batch.text is not None:
        images = config.patches + 1 if batch.image is not None else 0
        outputs["states"][:, images:][~arguments["valid"]] = 0  # nobody reads the states of padding
        outputs[Modality.LANGUAGE] = np.take_along_axis(
            found["text"], np.asarray(batch.text_masked)[..., None], 1
        )
    return outputs


@functools.cache
def jax_outputs(config, stream):
    tokens, logits = tiny.outputs(config)(tiny.random_params(config), tiny.inputs(config, stream))
    states = tokens.x if tokens.valid is None else jnp.where(tokens.valid[..., None], tokens.x, 0)
    return {"states": states, **logits}


def distances(positions, stream, **changes):
    config = tiny.model_config(positions)
    expected = reference_outputs(
        config,
        vlmo_weights(tiny.random_params(config), config),
        tiny.inputs(config, stream),
        **changes,
    )
    found = jax_outputs(config, stream)
    assert found.keys() == expected.keys()
    return {name: distance(found[name], expected[name]) for name in expected}


@every_stream
@every_scheme
def test_states_and_logits(positions, stream):
    assert max(distances(positions, stream).values()) < TOLERANCE


@every_stream
@every_scheme
@pytest.mark.parametrize("changes", [{"tanh_gelu": True}, {"eps": 1e-5}], ids=str)
def test_another_gelu_or_epsilon_is_noticed(positions, stream, changes):
    assert min(distances(positions, stream, **changes).values()) > 2 * TOLERANCE


def compare_gradients(loss, gradients, params, seed):
    """Central differences of ``loss``, parameter by parameter, along random directions."""
    flat = {path: np.asarray(leaf, np.float64) for path, leaf in flatten_dict(params).items()}
    assert flat.keys() == gradients.keys()
    for path, gradient in gradients.items():
        direction = np.random.default_rng([seed, zlib.crc32(str(path).encode())]).normal(
            size=gradient.shape
        )
        direction /= np.linalg.norm(direction)
        up, down = (
            loss(unflatten_dict(flat | {path: flat[path] + step * direction}))
            for step in (STEP, -STEP)
        )
        products = np.asarray(gradient, np.float64) * direction
        scale = np.sqrt((products**2).sum())
        assert abs((up - down) / (2 * STEP) - products.sum()) <= GRADIENT_TOLERANCE * scale, path


@pytest.mark.parametrize(
    ("positions", "stream"),
    [
        # Pairs go through every embedding and head; one case each is for the top blocks alone.
        *((positions, "pair") for positions in tiny.POSITIONS),
        (Positions.RELATIVE, "image"),
        (Positions.ABSOLUTE, "text"),
        pytest.param(Positions.ABSOLUTE, "image", marks=pytest.mark.slow),
        pytest.param(Positions.RELATIVE, "text", marks=pytest.mark.slow),
    ],
)
def test_gradients(positions, stream):
    config = tiny.model_config(positions)
    params, batch = tiny.random_params(config), tiny.inputs(config, stream)
    answers = tiny.targets(config, batch)

    def reference_loss(params):
        found = reference_outputs(config, vlmo_weights(params, config), batch)
        return sum(
            reference.cross_entropy(found[modality], np.asarray(answers[modality])).mean()
            for modality in answers
        )

    _, gradients = tiny.losses_and_gradients(config)(params, batch, answers)
    compare_gradients(reference_loss, gradients, params, seed=1)


@pytest.mark.parametrize(
    "stream",
    ["pair", *(pytest.param(each, marks=pytest.mark.slow) for each in ("image", "text"))],
)
def test_without_layer_scale(stream):
    config = tiny.model_config(Positions.ABSOLUTE, layer_scale=0.0)
    params = tiny.random_params(config)
    scaled = flatten_dict(params) | {
        ("encoder", f"block_{layer}", name): jnp.ones(config.width)
        for layer in range(config.depth)
        for name in ("attention_scale", "expert_scale")
    }
    expected = reference_outputs(
        config, vlmo_weights(unflatten_dict(scaled), config), tiny.inputs(config, stream)
    )
    found = jax_outputs(config, stream)
    assert max(distance(found[name], expected[name]) for name in expected) < TOLERANCE


def visual_tokenizer():
    config = tiny.tokenizer_config()
    teacher = PixelTeacher(config.patch_size)
    return config, teacher, *tiny.random_tokenizer(config, teacher.width), tiny.images(config)


def test_visual_tokenizer():
    config, _, model, params, codebook, image = visual_tokenizer()
    weights = vqkd_weights(params, codebook, config)
    encoder, decoder = tiny.vit_nets(config)
    with jax.default_matmul_precision("highest"):
        features, codes, predicted = tiny.usual_jit(model.apply)(
            {"params": params}, image, codebook
        )
        alone = tiny.usual_jit(functools.partial(model.apply, method="encode"))(
            {"params": params}, image, codebook
        )
    expected_features, expected_codes = reference.vqkd_encode(weights, encoder, as_float(image))
    expected = reference.vqkd_decode(
        weights, decoder, weights["quantize.embedding.weight"][expected_codes]
    )
    assert len(np.unique(expected_codes)) > 3
    assert distance(features, expected_features) < TOLERANCE
    np.testing.assert_array_equal(codes, expected_codes)
    np.testing.assert_array_equal(alone, expected_codes)
    assert distance(predicted, expected) < TOLERANCE


def test_visual_tokenizer_gradients():
    """Straight through: the reference holds the step from feature to code fixed."""
    config, teacher, model, params, codebook, image = visual_tokenizer()
    encoder, decoder = tiny.vit_nets(config)
    target = np.asarray(teacher.targets({}, image), np.float64)
    weights = vqkd_weights(params, codebook, config)
    start, codes = reference.vqkd_encode(weights, encoder, as_float(image))
    assigned = weights["quantize.embedding.weight"][codes]

    def reference_loss(params):
        weights = vqkd_weights(params, codebook, config)
        z, _ = reference.vqkd_encode(weights, encoder, as_float(image))
        rec = reference.vqkd_decode(weights, decoder, z + (assigned - start))
        return sum(reference.distillation(rec, target, z, assigned))

    def jax_loss(params):
        batch = {"image": image, "weight": jnp.ones(len(image))}
        terms, _ = Distillation(model, teacher, len(batch["image"])).losses(
            params, {"codebook": codebook}, {}, batch, None
        )
        return sum(term.loss / term.weight for term in terms.values())

    with jax.default_matmul_precision("highest"):
        value, gradients = tiny.usual_jit(jax.value_and_grad(jax_loss))(params)
    assert distance(value, np.asarray(reference_loss(params))) < TOLERANCE
    compare_gradients(reference_loss, flatten_dict(gradients), params, seed=2)
