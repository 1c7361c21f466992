"""Facts that parameters declare: those of the rules by name that they replace."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from tests.models import tiny_models as tiny
from vlbeit_jax.models.backbone import layer_of
from vlbeit_jax.models.params import ParamInfo, cast_params, declare, read_info
from vlbeit_jax.models.visual_tokenizer import tokenizer_params
from vlbeit_jax.models.vlbeit import VLBEiT
from vlbeit_jax.training.state import declarations
from vlbeit_jax.types import Positions

HALF, FULL = jnp.dtype("bfloat16"), jnp.dtype("float32")
NETWORKS = {
    "absolute": {"positions": Positions.ABSOLUTE},
    "relative": {"positions": Positions.RELATIVE},
    "decoupled": {"positions": Positions.ABSOLUTE, "decoupled": True, "sub_norm": True},
}


def by_name(path):
    """(decay, dtype, grad_dtype, vocab_parallel) by the names on a path, with bfloat16 products."""
    exact = path[0] in ("to_code", "to_target")  # VQ-KD's projections around the codebook.
    product = path[-1] in ("kernel", "qkv", "out")
    used = HALF if product and not exact else FULL
    reduced = HALF if path[-1] == "words" else used
    return product or path[-1] == "words", used, reduced, bool({"words", "language_head"} & {*path})


def declared_by(network):
    if network == "vqkd":
        boxed = tokenizer_params(tiny.tokenizer_config(matmul="bfloat16"), 7)
        return nn.unbox(boxed), read_info(boxed)
    options = dict(NETWORKS[network])
    fused = {"fused_layers": 0} if options.get("decoupled") else {}
    config = tiny.model_config(options.pop("positions"), matmul="bfloat16", **options, **fused)
    return declarations(lambda key: VLBEiT(config).init(key, method="init_all")["params"])


@pytest.mark.parametrize("network", [*NETWORKS, "vqkd"])
def test_declared_facts_are_those_of_the_names(network):
    shapes, info = declared_by(network)
    assert jax.tree.structure(shapes) == jax.tree.structure(info)
    for (path, each), leaf in zip(
        jax.tree_util.tree_leaves_with_path(info), jax.tree.leaves(shapes), strict=True
    ):
        names = [entry.key for entry in path]
        facts = (each.decay, each.dtype, each.grad_dtype, each.vocab_parallel)
        assert facts == by_name(names), names
        assert len(each.axes) == leaf.ndim, names


def test_defaults_are_safe_and_types_compare_equal():
    init = declare(nn.initializers.ones, None, dtype=jnp.bfloat16)
    info = init(jax.random.key(0), (3,)).info
    assert info.grad_dtype == info.dtype == HALF and hash(info.dtype) == hash(HALF)
    assert declare(nn.initializers.ones, None)(jax.random.key(0), (3,)).info == ParamInfo((None,))
    with pytest.raises(ValueError, match=r"1 axes .* shape \(3, 2\)"):
        init(jax.random.key(0), (3, 2))


def test_a_parameter_without_a_box_is_kept_in_float32():
    info = read_info({"a": jnp.ones((2, 3))})
    assert info == {"a": ParamInfo((None, None))}
    assert cast_params({"a": jnp.ones((2, 3))}, info)["a"].dtype == FULL


def test_layers_are_counted_from_the_embeddings_to_the_heads():
    wanted = {
        ("vision_embed", "cls"): 0,
        ("text_embed", "words"): 0,
        ("encoder", "block_0", "attention", "qkv"): 1,
        ("encoder", "block_11", "vision", "up", "kernel"): 12,
        ("encoder", "norm", "scale"): 13,
        ("language_head", "kernel"): 13,
    }
    assert {path: layer_of(path, 12) for path in wanted} == wanted
