"""One loop over blocks that route alike computes what a copy of the block for each does."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from tests.models import tiny_models as tiny
from tests.models.test_vlbeit import assert_same_bits, every_stream
from vlbeit_jax.models.vlbeit import VLBEiT
from vlbeit_jax.objectives.base import uniform_per_row
from vlbeit_jax.ops.losses import cross_entropy
from vlbeit_jax.types import Positions

DEPTH, FUSED = 4, 2
VARIANTS = {
    "as published": {"drop_path": 0.6},
    "computed again": {"drop_path": 0.6, "remat": "full"},
    "BEiT-3": {
        "drop_path": 0.6,
        "remat": "dots",
        "decoupled": True,
        "sub_norm": True,
        "layer_scale": 0.0,
    },
}


def config_with(positions=Positions.ABSOLUTE, **changes):
    return tiny.model_config(positions, **{"depth": DEPTH, "fused_layers": FUSED} | changes)


def unrolled(config):
    return dataclasses.replace(config, scan=False, remat="none")


def draws_for(config):
    return uniform_per_row(jax.random.key(2), jnp.arange(tiny.BATCH), config.depth, 2)


@functools.cache
def compiled(config):
    """(params, inputs, answers, draws) -> losses by modality, gradients of their sum by path."""

    def losses(params, batch, answers, draws):
        logits = VLBEiT(config).apply({"params": params}, batch, draws, method="logits")
        found = {
            modality: cross_entropy(logits[modality], answers[modality]).loss.mean()
            for modality in answers
        }
        return sum(found.values()), found

    @tiny.usual_jit
    def both(*given):
        gradients, found = jax.grad(losses, has_aux=True)(*given)
        return found, flatten_dict(gradients)

    return both


def losses_and_gradients(config, stream, params=None, draws=None):
    batch = tiny.inputs(config, stream)
    params = tiny.random_params(unrolled(config)) if params is None else params
    return compiled(config)(
        params, batch, tiny.targets(config, batch), draws_for(config) if draws is None else draws
    )


def assert_same(found, wanted):
    for modality, loss in wanted[0].items():
        np.testing.assert_allclose(found[0][modality], loss, rtol=1e-6)
    scale = max(np.abs(leaf).max() for leaf in wanted[1].values())
    for path, leaf in wanted[1].items():
        np.testing.assert_allclose(
            found[1][path], leaf, rtol=0, atol=2e-6 * scale, err_msg=str(path)
        )
        assert np.any(found[1][path]) == np.any(leaf), path  # Exactly zero where nothing is routed.


def every_pair():
    """Each two of stream, scheme of positions and variant come together in some case."""
    schemes = {"image": Positions.RELATIVE, "text": Positions.ABSOLUTE, "pair": Positions.RELATIVE}
    other = {Positions.RELATIVE: Positions.ABSOLUTE, Positions.ABSOLUTE: Positions.RELATIVE}
    for stream, scheme in schemes.items():
        for variant in VARIANTS:
            yield stream, other[scheme] if variant == "BEiT-3" else scheme, variant


@pytest.mark.parametrize(
    ("stream", "positions", "variant"),
    # A pair goes through the blocks of images and of texts, and through the fused ones. A step on a
    # mesh has a loop that is computed again (tests/training/test_step.py).
    [
        pytest.param(
            *each,
            marks=() if each[0] == "pair" and each[2] == "as published" else pytest.mark.slow,
        )
        for each in every_pair()
    ],
)
def test_a_loop_gives_the_same_losses_and_gradients(stream, positions, variant):
    config = config_with(positions, scan=True, **VARIANTS[variant])
    assert_same(
        losses_and_gradients(config, stream), losses_and_gradients(unrolled(config), stream)
    )


@pytest.mark.parametrize("what", ["parameters", "draws", "bias"])
def test_blocks_in_another_order_are_noticed(what):
    config = config_with(Positions.RELATIVE, scan=True, drop_path=0.6)
    wanted = losses_and_gradients(unrolled(config), "pair")
    params, draws = tiny.random_params(unrolled(config)), draws_for(config)
    encoder = dict(params["encoder"])
    if what == "parameters":
        encoder |= {"block_0": encoder["block_1"], "block_1": encoder["block_0"]}
    elif what == "bias":
        encoder["relative_positions"] = encoder["relative_positions"][:, ::-1]
    else:
        draws = draws[:, ::-1]
    with pytest.raises(AssertionError):
        assert_same(
            losses_and_gradients(config, "pair", params | {"encoder": encoder}, draws), wanted
        )


@pytest.mark.parametrize("remat", ["none", "dots", "full"])
@every_stream
def test_blocks_are_looped_over_as_far_as_they_route_alike(stream, remat):
    config = config_with(scan=True, remat=remat)
    params, batch = tiny.random_params(unrolled(config)), tiny.inputs(config, stream)

    def loops(config):
        program = jax.make_jaxpr(
            lambda params: VLBEiT(config).apply({"params": params}, batch, method="logits")
        )(params)
        return [each.params["length"] for each in program.eqns if each.primitive.name == "scan"]

    assert loops(config) == ([DEPTH - FUSED, FUSED] if stream == "pair" else [DEPTH])
    assert loops(dataclasses.replace(config, scan=False)) == []


def test_fresh_parameters_do_not_depend_on_it():
    fresh = [
        tiny.usual_jit(
            lambda key, scan=scan: VLBEiT(config_with(Positions.RELATIVE, scan=scan)).init(
                key, method="init_all"
            )
        )
        for scan in (False, True)
    ]
    assert_same_bits(*(make(jax.random.key(0)) for make in fresh))


def test_the_visual_tokenizer_too():
    config = tiny.tokenizer_config(encoder_depth=3, decoder_depth=2, drop_path=0.6)
    model, params, codebook = tiny.random_tokenizer(config, 11)
    image, draws = (
        tiny.images(config),
        uniform_per_row(jax.random.key(2), jnp.arange(tiny.BATCH), 5, 2),
    )

    def outputs(config):
        return tiny.usual_jit(
            lambda params: dataclasses.replace(model, config=config).apply(
                {"params": params}, image, codebook, draws
            )
        )(params)

    found, wanted = outputs(dataclasses.replace(config, scan=True)), outputs(config)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5), found, wanted)
