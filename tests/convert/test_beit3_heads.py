"""BEiT-3's fine-tuned layouts: random tensors by its names give the same logits here."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from tests.convert.named import randomised
from tests.convert.test_beit3 import (
    DEPTH,
    FFN,
    GRID,
    HEADS_THERE,
    PATCH,
    TEXTS,
    WIDTH,
    WORDS,
    published_shapes,
)
from tests.ops.slow_beam_search import padded, slow_beam_search
from tests.references import beit3 as reference
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.convert.formats.beit3_heads import (
    captioning_table,
    classification_table,
    reasoning_table,
    retrieval_table,
    vqa_table,
)
from vlbeit_jax.convert.rules import load
from vlbeit_jax.convert.source import as_tree, tree_shapes
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.backbone import Inputs
from vlbeit_jax.models.captioner import Captioner, write_captions
from vlbeit_jax.models.classifier import Classifier
from vlbeit_jax.models.reasoner import Reasoner
from vlbeit_jax.models.retrieval import DualEncoder
from vlbeit_jax.models.vqa import VQA
from vlbeit_jax.ops.beam_search import Search
from vlbeit_jax.types import Modality, Special

ANSWERS, HEADS, ROWS, LENGTHS = 31, 2, 3, (TEXTS, 5, 9)
CONFIG = ModelConfig(
    image_size=GRID * PATCH,
    patch_size=PATCH,
    width=WIDTH,
    depth=DEPTH,
    heads=HEADS,
    ffn_width=FFN,
    fused_layers=0,
    text_positions=TEXTS,
    layer_scale=0.0,
    norm_eps=1e-5,
    sub_norm=True,
    decoupled=True,
    vocabulary=WORDS,
    pad=1,
    matmul="float32",
)
NET = reference.Net(DEPTH, HEADS, PATCH)
PARTS = ("weight", "bias")
VQA_NET, DUAL_NET = VQA(CONFIG, ANSWERS), DualEncoder(CONFIG, WIDTH)


def tensors_of(heads, final_norm):
    """Random tensors of a fine-tuned checkpoint: the trunk and some heads."""
    shapes = {
        name: shape
        for name, shape in published_shapes().items()
        if name not in HEADS_THERE
        and not name.startswith("mim_head")
        and (final_norm or not name.startswith("beit3.encoder.layer_norm"))
    }
    return randomised(shapes | heads)


def vqa_tensors():
    norms = {"pooler.norm": WIDTH, "head.1": 2 * WIDTH}
    heads = {f"{name}.{part}": (size,) for name, size in norms.items() for part in PARTS}
    for name, o, i in (
        ("pooler.dense", WIDTH, WIDTH),
        ("head.0", 2 * WIDTH, WIDTH),
        ("head.3", ANSWERS, 2 * WIDTH),
    ):
        heads |= {f"{name}.weight": (o, i), f"{name}.bias": (o,)}
    return tensors_of(heads, final_norm=False)


def reasoning_tensors():
    norms = {"head.norm1": 4 * WIDTH, "head.norm2": 2 * WIDTH}
    heads = {f"{name}.{part}": (size,) for name, size in norms.items() for part in PARTS}
    for name, o, i in (("head.dense1", 2 * WIDTH, 4 * WIDTH), ("head.dense2", 2, 2 * WIDTH)):
        heads |= {f"{name}.weight": (o, i), f"{name}.bias": (o,)}
    return tensors_of(heads, final_norm=True)


def retrieval_tensors():
    heads = dict.fromkeys(("vision_head.weight", "language_head.weight"), (WIDTH, WIDTH))
    return tensors_of(heads | {"logit_scale": ()}, final_norm=True)


def classification_tensors():
    shapes = {"fc_norm.weight": (WIDTH,), "fc_norm.bias": (WIDTH,)}
    shapes |= {"head.weight": (ANSWERS, WIDTH), "head.bias": (ANSWERS,)}
    return tensors_of(shapes, final_norm=False)


def captioning_tensors():
    return tensors_of(
        {"mlm_head.weight": (WORDS, WIDTH), "mlm_head.bias": (WORDS,)}, final_norm=True
    )


def batch():
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (ROWS, CONFIG.image_size, CONFIG.image_size, 3), np.uint8)
    text = rng.integers(2, WORDS, (ROWS, TEXTS))
    valid = np.arange(TEXTS) < np.array(LENGTHS)[:, None]
    return image, np.where(valid, text, CONFIG.pad), valid


def shapes_of(network):
    init = jax.eval_shape(
        lambda key: network.init(key, method="init_all")["params"], jax.random.key(0)
    )
    return tree_shapes(init)


def applied(network, params, method, **inputs):
    def forward(params):
        return network.apply({"params": params}, Inputs(**inputs), method=method)

    with jax.default_matmul_precision("highest"):
        return np.asarray(jax.jit(forward)(as_tree(params)))


def test_answers_have_the_logits_of_the_published_network():
    w = vqa_tensors()
    params, report = load(vqa_table(CONFIG), w, shapes_of(VQA_NET))
    assert not report.dropped and not report.fresh
    image, text, valid = batch()
    found = applied(VQA_NET, params, "__call__", image=jnp.asarray(image), text=jnp.asarray(text))
    wide = {name: value.astype(np.float64) for name, value in w.items()}
    given = (image / 127.5 - 1, text, valid)
    expected = reference.answer_logits(wide, NET, *given)
    assert np.abs(expected).max() > 1
    assert np.abs(found - expected).max() < 1e-5
    for control in ({"tanh_gelu": True}, {"eps": 1e-3}, {"pooled": 1 + GRID**2}):
        net = dataclasses.replace(NET, **control)
        other = reference.answer_logits(wide, net, *given)
        assert np.abs(found - other).max() > 1e-4, control


def test_truths_have_the_logits_of_the_published_network():
    w, network = reasoning_tensors(), Reasoner(CONFIG)
    params, report = load(reasoning_table(CONFIG), w, shapes_of(network))
    assert not report.dropped and not report.fresh
    assert not params["vision_embed/second_type"].any()
    image, text, valid = batch()
    second = image[::-1]
    given = {name: jnp.asarray(value) for name, value in (("image", image), ("text", text))}
    found = applied(network, params, "__call__", second_image=jnp.asarray(second), **given)
    wide = {name: value.astype(np.float64) for name, value in w.items()}
    images = [image / 127.5 - 1, second / 127.5 - 1]
    expected = reference.truth_logits(wide, NET, images, text, valid)
    assert np.abs(expected).max() > 0.5
    assert np.abs(found - expected).max() < 1e-5
    controls = [({"tanh_gelu": True}, images), ({"eps": 1e-3}, images), ({"pooled": 1}, images)]
    for control, order in [*controls, ({}, images[::-1])]:
        other = reference.truth_logits(
            wide, dataclasses.replace(NET, **control), order, text, valid
        )
        assert np.abs(found - other).max() > 1e-4, control


def test_embeddings_are_those_of_the_published_network():
    w = retrieval_tensors()
    params, report = load(retrieval_table(CONFIG), w, shapes_of(DUAL_NET))
    assert not report.dropped and not report.fresh
    assert params["head/logit_scale"] == w["logit_scale"]
    image, text, valid = batch()
    found = [
        applied(DUAL_NET, params, "embed_image", image=jnp.asarray(image)),
        applied(DUAL_NET, params, "embed_text", text=jnp.asarray(text)),
    ]
    wide = {name: value.astype(np.float64) for name, value in w.items()}
    expected = reference.embeddings(wide, NET, image / 127.5 - 1, text, valid)
    other = reference.embeddings(
        wide, dataclasses.replace(NET, pooled=1), image / 127.5 - 1, text, valid
    )
    for one, right, wrong in zip(found, expected, other, strict=True):
        assert np.abs(one - right).max() < 1e-5
        assert np.abs(one - wrong).max() > 1e-2


def test_classes_have_the_logits_of_the_published_network():
    w, network = classification_tensors(), Classifier(CONFIG, ANSWERS, Modality.VISION, "mean")
    params, report = load(classification_table(CONFIG), w, shapes_of(network))
    assert not report.fresh and report.dropped
    assert all(".B." in name or "text_embed" in name for name in report.dropped)
    image, *_ = batch()
    found = applied(network, params, "__call__", image=jnp.asarray(image))
    wide = {name: value.astype(np.float64) for name, value in w.items()}
    expected = reference.class_logits(wide, NET, image / 127.5 - 1)
    assert np.abs(expected).max() > 1
    assert np.abs(found - expected).max() < 1e-5
    for control in ({"tanh_gelu": True}, {"eps": 1e-3}, {"pooled": 1}):  # The last: with CLS.
        net = dataclasses.replace(NET, **control)
        other = reference.class_logits(wide, net, image / 127.5 - 1)
        assert np.abs(found - other).max() > 1e-4, control


def test_captions_have_the_logits_of_the_published_network():
    w, network = captioning_tensors(), Captioner(CONFIG)
    params, report = load(captioning_table(CONFIG), w, shapes_of(network))
    assert not report.dropped and not report.fresh
    image, text, valid = batch()
    found = applied(network, params, "__call__", image=jnp.asarray(image), text=jnp.asarray(text))
    wide = {name: value.astype(np.float64) for name, value in w.items()}
    given = (image / 127.5 - 1, text, valid)
    expected = np.where(valid[..., None], reference.caption_logits(wide, NET, *given), 0)
    found = np.where(valid[..., None], found, 0)
    assert np.abs(expected).max() > 1
    assert np.abs(found - expected).max() < 1e-5
    for net, control in ((dataclasses.replace(NET, eps=1e-3), {}), (NET, {"causal": False})):
        other = np.where(
            valid[..., None], reference.caption_logits(wide, net, *given, **control), 0
        )
        assert np.abs(found - other).max() > 1e-4, control


@pytest.mark.parametrize("beams", [1, 3])
def test_captions_are_those_that_the_published_network_gives_piece_by_piece(beams):
    """In NumPy and float64, the whole network for every piece."""
    w = captioning_tensors()
    params, _ = load(captioning_table(CONFIG), w, shapes_of(Captioner(CONFIG)))
    image, *_ = batch()
    wide = {name: value.astype(np.float64) for name, value in w.items()}

    def shares(row, text):
        ids = np.array([[*text, Special.MASK]])
        given = (image[row : row + 1] / 127.5 - 1, ids, np.ones(ids.shape, bool))
        return log_softmax(reference.caption_logits(wide, NET, *given)[0, -1])

    search, config = Search(6, beams, 0.6), dataclasses.replace(CONFIG, pad=Special.PAD)
    with jax.default_matmul_precision("highest"):
        found = jax.jit(functools.partial(write_captions, config, search))(as_tree(params), image)
    for row in range(ROWS):
        _, total, text = slow_beam_search(functools.partial(shares, row), 6, beams, 0.6)
        assert found.text[row].tolist() == padded(text, 6)
        assert found.log_probability[row] == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"head.3.bias": np.zeros(3, np.float32)}, r"head.3.bias is \[3\], expected \[31\]"),
        ({"beit3.encoder.layer_norm.A.weight": np.ones(WIDTH)}, "no rule uses: beit3.encoder"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(change, said):
    with pytest.raises(UsageError, match=said):
        load(vqa_table(CONFIG), vqa_tensors() | change, shapes_of(VQA_NET))
