"""The formula's networks are found by tracing; a reader's arithmetic gives the same bytes."""

import dataclasses

import flax.linen as nn
import jax
import pytest

from tests import tiny
from vlbeit_jax.config.networks import SIZES
from vlbeit_jax.errors import UsageError
from vlbeit_jax.plan.memory import activation_bytes
from vlbeit_jax.plan.networks import networks_of
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.abstract import row_shapes
from vlbeit_jax.tasks.pretrain import Pretrain
from vlbeit_jax.tasks.visual_reasoning import VisualReasoning
from vlbeit_jax.tasks.vqkd import VQKD
from vlbeit_jax.types import Modality

BASE = Config(
    task=tiny.changed(
        Pretrain(schedule="pair"),
        model=SIZES["tiny"] | {"depth": 3, "fused_layers": 1, "matmul": "bfloat16"},
        tokenizer_model={"encoder_depth": 2, "decoder_depth": 1},
        pair={"batch_size": 6},
    )
)


def networks(config, stream):
    task = config.task
    params = nn.unbox(jax.eval_shape(task.init, jax.random.key(0)))
    objective = task.streams()[stream].objective
    return networks_of(objective, params, task.frozen(), row_shapes(task, stream))


def with_model(**changed):
    return tiny.changed(BASE, task={"model": changed})


def test_a_pair_goes_through_the_trained_network_and_the_frozen_tokenizer():
    found, model, pair = networks(BASE, "pair"), BASE.task.model, BASE.task.pair
    trained, tokenizer = sorted(found.stacks, key=lambda stack: not stack.trained)
    assert trained.trained and not tokenizer.trained
    assert (trained.rows, trained.config.depth) == (6, model.depth)
    patches = (Modality.VISION, model.patches + 1)
    assert trained.layout == (patches, (Modality.LANGUAGE, pair.text_length))
    assert tokenizer.layout == (patches,) and tokenizer.config.depth == 2
    slots = jax.tree.map(lambda leaf: leaf.shape, row_shapes(BASE.task, "pair"))
    words = -(-model.vocabulary // 128) * 128
    assert (
        found.logits == slots["masked_patches"][1] * model.codes + slots["text_masked"][1] * words
    )


def test_a_statement_about_two_images_is_two_rows():
    """Its activations are those of two pairs; a formula that counts examples has half of them."""
    model = SIZES["tiny"] | {"depth": 2, "fused_layers": 1, "matmul": "bfloat16"}
    task = tiny.changed(VisualReasoning(), model=model, statement={"batch_size": 6})
    found = networks(Config(task=task), "statement")
    (stack,) = found.stacks
    assert (found.rows, stack.rows) == (6, 12)
    halved = found._replace(stacks=(stack._replace(rows=6),), logits=0)
    whole = activation_bytes(found._replace(logits=0), 1, 1, on_tpu=True)
    assert whole == 2 * activation_bytes(halved, 1, 1, on_tpu=True) > 0


def test_cached_tokens_need_no_tokenizer():
    config = tiny.changed(BASE, task={"visual_tokens": "somewhere"})
    (only,) = networks(config, "pair").stacks
    assert only.trained


def test_a_tokenizer_that_cuts_images_otherwise_is_refused():
    other = tiny.changed(BASE, task={"tokenizer_model": {"image_size": 112}})
    with pytest.raises(UsageError, match="112 px into 7 x 7 patches, but .* 224 px into 14 x 14"):
        other.task.frozen()
    # A coarser view of the same patches is fine.
    tiny.changed(BASE, task={"tokenizer_model": {"image_size": 112, "patch_size": 8}}).task.frozen()


@pytest.mark.parametrize(("teacher", "frozen"), [("pixels", 0), ("clip", 1)])
def test_vqkd_trains_both_halves_and_looks_at_a_teacher(teacher, frozen):
    model = dataclasses.replace(BASE.task.tokenizer_model, teacher=teacher)
    config = dataclasses.replace(BASE, task=VQKD(model=model))
    stacks = networks(config, "image").stacks
    assert [stack.config.depth for stack in stacks if stack.trained] == [2, 1]
    assert sum(not stack.trained for stack in stacks) == frozen


def test_a_loop_is_code_for_one_block_of_each_route():
    trained = lambda config: next(s for s in networks(config, "pair").stacks if s.trained)  # noqa: E731
    depth = BASE.task.model.depth
    assert trained(BASE).blocks_of_code == depth
    assert trained(with_model(scan=True, fused_layers=1)).blocks_of_code == 2
    assert trained(with_model(scan=True, fused_layers=0)).blocks_of_code == 1
    assert trained(with_model(scan=True, fused_layers=depth)).blocks_of_code == 1


@pytest.mark.parametrize("remat", ["none", "dots", "full"])
def test_activations_by_hand(remat):
    """One microbatch of two of the six rows, in bfloat16, without a kernel."""
    config = with_model(remat=remat)
    found, model = networks(config, "pair"), config.task.model
    length = model.patches + 1 + config.task.pair.text_length
    width, ffn = model.width, model.ffn_width
    block = length * (8 * width + 4 * width + 8 * width + 4 * ffn)
    block += model.heads * length**2 * 6
    kept = {
        "none": model.depth * block,
        "dots": model.depth * length * (4 * width + 2 * (5 * width + ffn)) + block,
        "full": model.depth * length * 4 * width + block,
    }[remat]
    assert activation_bytes(found, 3, 1, on_tpu=False) == 2 * (kept + 8 * found.logits)
