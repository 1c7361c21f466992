"""The network of captions: an independent network, and captions by calling it for every piece."""

import functools

import jax
import numpy as np
import pytest
from scipy.special import log_softmax

from tests.models import tiny_models as tiny
from tests.models.published_weights import vlmo_weights
from tests.ops.slow_beam_search import padded, slow_beam_search
from vlbeit_jax.convert import reference
from vlbeit_jax.models.backbone import Inputs
from vlbeit_jax.models.captioner import Captioner, write_captions, writing_mask
from vlbeit_jax.ops.beam_search import Search
from vlbeit_jax.types import Modality, Special

ROWS, LENGTH = 3, 9
every_scheme = pytest.mark.parametrize("positions", tiny.POSITIONS)


@functools.cache
def drawn(positions):
    """A configuration, its parameters here and under other names, and images."""
    config = tiny.model_config(positions)
    params = tiny.random_params(config)
    weights = vlmo_weights(params, config)
    image = np.random.default_rng(5).integers(0, 256, (ROWS, 12, 12, 3), np.uint8)
    return config, params, weights, image


def whole(config, weights, image, text, sees_all=False):
    """Logits of every position by NumPy in float64; the whole network for each call."""
    net = tiny.reference_net(config)
    tokens = [
        reference.image_tokens(weights, image / 127.5 - 1, None, net),
        reference.text_tokens(weights, text, net),
    ]
    images, texts = (part.shape[1] for part in tokens)
    seen = np.zeros((images + texts,) * 2, bool)
    seen[:, :images] = True
    for piece in range(texts):
        seen[images + piece, images : images + piece + 1] = True
    if sees_all:
        seen[:] = True
    present = np.concatenate([np.ones((len(text), images), bool), text != Special.PAD], axis=1)
    seen = seen & present[:, None]
    x = reference.blocks(weights, np.concatenate(tokens, 1), seen, net, images, texts)
    x = reference.layer_norm(weights, "norm", x[:, images:], net)
    return reference.linear(weights, "mlm_head", x)[..., : config.vocabulary]


@every_scheme
def test_logits_are_those_of_an_independent_network(positions):
    config, params, weights, image = drawn(positions)
    text = np.random.default_rng(6).integers(5, config.vocabulary, (ROWS, LENGTH))
    text[:, 0], text[0, 6:], text[1, 3] = Special.CLS, Special.PAD, Special.MASK
    network = Captioner(config)
    found = jax.jit(network.apply)({"params": params}, Inputs(image=image, text=text))
    found = np.where((text != Special.PAD)[..., None], found[..., : config.vocabulary], 0)
    expected, other = (
        np.where((text != Special.PAD)[..., None], each, 0)
        for each in (
            whole(config, weights, image, text),
            whole(config, weights, image, text, sees_all=True),
        )
    )
    largest = np.abs(expected).max()
    assert np.abs(found - expected).max() < 2e-5 * largest
    assert np.abs(found - other).max() > 1e-2 * largest


@every_scheme
def test_captions_are_those_of_the_whole_network_for_every_piece(positions):
    """Greedy, and with three beams. Images that are read with other images have the same ones."""
    config, params, weights, image = drawn(positions)
    lengths = set()
    for beams in (1, 3):
        search = Search(LENGTH, beams, 0.6)
        write = jax.jit(functools.partial(write_captions, config, search))
        for likelier in (0, 2, 4):
            there, here = ends_likelier(weights, params, likelier)
            found = jax.device_get(write(here, image))
            for row in range(ROWS):
                shares = functools.partial(next_shares, config, there, image[row : row + 1])
                _, total, text = slow_beam_search(shares, LENGTH, beams, search.penalty)
                lengths.add(len(text))
                assert found.text[row].tolist() == padded(text, LENGTH)
                assert found.log_probability[row] == pytest.approx(total, rel=1e-4)
    alone = jax.device_get(write(here, image[::-1][:1]))
    np.testing.assert_array_equal(alone.text[0], found.text[-1])
    assert len(lengths) > 1


def next_shares(config, weights, image, text):
    """Log-probabilities of the piece after a text."""
    return log_softmax(whole(config, weights, image, np.array([[*text, Special.MASK]]))[0, -1])


def ends_likelier(weights, params, nats):
    """Weights under other names, and parameters, with which SEP is likelier; texts are shorter."""
    name, bias = "mlm_head.bias", np.array(params["language_head"]["bias"])
    there = weights[name].copy()
    there[Special.SEP], bias[Special.SEP] = there[Special.SEP] + nats, bias[Special.SEP] + nats
    head = {**params["language_head"], "bias": bias}
    return {**weights, name: there}, {**params, "language_head": head}


def test_images_see_images_and_texts_see_what_is_before():
    found = writing_mask(((Modality.VISION, 2), (Modality.LANGUAGE, 3)))
    assert found.astype(int).tolist() == [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
    ]
