"""What tools.attention_plan compiles: the same function by each name that runs here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tools import attention_plan
from vlbeit_jax.errors import UsageError

ROWS, TOKENS = 2, 24


@pytest.mark.parametrize("name", ["remat", "dot_product", "fused"])  # Splash runs on TPUs alone.
def test_all_compute_the_same_attention_and_gradients(name):
    width, rng = attention_plan.WIDTH, np.random.default_rng(0)
    x, shift, change = (
        jnp.asarray(rng.normal(size=shape), jnp.float32)
        for shape in ((ROWS, TOKENS, 3 * width), (3 * width,), (ROWS, TOKENS, width))
    )
    valid = jnp.arange(TOKENS) < jnp.array([[TOKENS], [15]])
    attend = attention_plan.implementations(TOKENS)

    def computed(name, valid):
        out, back = jax.vjp(lambda *given: attend[name](*given, valid), x, shift)
        return [out, *back(change)]

    found, wanted = computed(name, valid), computed("einsum", valid)
    other = computed(name, jnp.ones_like(valid))  # The control: without padding.
    for ours, theirs, wrong in zip(found, wanted, other, strict=True):
        scale = float(jnp.abs(theirs).max())
        assert float(jnp.abs(ours - theirs).max()) < 2e-5 * scale
        assert float(jnp.abs(wrong - theirs).max()) > 1e-2 * scale


def test_what_it_needs_is_said():
    for given in ([], ["8"], ["8", "many"], ["8", "577", "flash"]):
        with pytest.raises(UsageError, match="ROWS TOKENS .*einsum, remat, dot_product, splash"):
            attention_plan.main(given)
