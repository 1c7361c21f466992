"""VQ-KD's objective: the codebook's move does not depend on how the batch was cut up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models import tiny_models as tiny
from vlbeit_jax.models.teacher import PixelTeacher
from vlbeit_jax.objectives.base import Context, Variables
from vlbeit_jax.objectives.distillation import Distillation
from vlbeit_jax.training.gradients import accumulated_gradients

IMAGES = 8


def objective_and_state(reseed_below):
    config = tiny.tokenizer_config(reseed_below=reseed_below)
    teacher = PixelTeacher(config.patch_size)
    network, params, codebook = tiny.random_tokenizer(config, teacher.width)
    objective = Distillation(network, teacher, IMAGES)
    model_state = objective.init_model_state() | {"codebook": codebook}
    weight = jnp.ones(IMAGES).at[3].set(0)
    return (
        objective,
        params,
        model_state,
        {"image": tiny.images(config, batch=IMAGES), "weight": weight, "row": jnp.arange(IMAGES)},
    )


def after_a_step(objective, params, model_state, batch, parts):
    weights, variables = objective.weights(batch), Variables(params, model_state, {})
    cut = jax.jit(
        lambda: accumulated_gradients(
            objective, variables, batch, weights, Context(jax.random.key(5)), parts
        )
    )
    gradients, terms, statistics = cut()
    return gradients, terms, *objective.update(model_state, statistics)


@pytest.mark.parametrize("parts", [2, 4])
def test_microbatches_move_the_codebook_alike(parts):
    setup = objective_and_state(0.0)
    whole, cut = (after_a_step(*setup, count) for count in (1, parts))
    for found, wanted in zip(jax.tree.leaves(cut), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    assert float(whole[1]["distillation"].weight) == (IMAGES - 1) * 9


def test_dead_codes_become_features_of_many_images_however_the_batch_is_cut():
    objective, params, model_state, batch = objective_and_state(0.5)
    model_state["use"] = model_state["use"].at[:10].set(0.0)
    *_, after, logged = after_a_step(objective, params, model_state, batch, 1)
    assert int(logged["reseeded"]) == 10 and (after["use"][:10] == 1).all()
    features = jax.jit(
        lambda p: objective.tokenizer.apply({"params": p}, batch["image"], method="features")
    )(params)
    cosines = jnp.einsum("ce,bne->cbn", after["codebook"][:10], features).max(axis=-1)
    np.testing.assert_allclose(cosines.max(axis=1), 1, atol=1e-5)
    assert len(set(cosines.argmax(axis=1).tolist())) > 3
    for parts in (2, 4):
        *_, cut, _ = after_a_step(objective, params, model_state, batch, parts)
        np.testing.assert_allclose(cut["codebook"], after["codebook"], atol=1e-5)
    assert not np.allclose(after["codebook"][:10], model_state["codebook"][:10], atol=0.1)
