"""Matching tells right pairs from wrong ones after training, and re-ranking makes use of it."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from tests import tiny
from tests.convert.random_runs import random_tree
from vlbeit_jax.config.common import LoaderConfig, RunConfig
from vlbeit_jax.data.shard import HostShard
from vlbeit_jax.metrics.retrieval import Ranks, recalls
from vlbeit_jax.models.backbone import Inputs
from vlbeit_jax.models.retrieval import DualEncoder
from vlbeit_jax.objectives.base import ROW, Context, Variables, on_one_device
from vlbeit_jax.objectives.matching import MATCHING, ContrastiveAndMatching
from vlbeit_jax.tasks.base import Place
from vlbeit_jax.tasks.ranking import Gallery, rerank_both
from vlbeit_jax.training.state import declarations

COLOURS, STEPS, ROWS, LENGTH = 8, 250, 24, 4
COMBINATIONS = np.arange(COLOURS**2)  # A colour above, and another one below.
PALETTE = np.random.default_rng(5).integers(0, 256, (2, COLOURS, 3))
# Without LayerScale, and from weights of usual size (``start``), it learns in few steps.
MODEL = tiny.changed(tiny.SMALL, width=32, ffn_width=64, heads=4, layer_scale=0.0)
SIDE = MODEL.image_size
NETWORK = DualEncoder(MODEL, MODEL.width, matching=True)


def pictures(rng, combinations):
    """Two halves with noise, so that no two pictures are equal."""
    found = np.empty((len(combinations), SIDE, SIDE, 3))
    found[:, : SIDE // 2] = PALETTE[0, combinations // COLOURS][:, None, None]
    found[:, SIDE // 2 :] = PALETTE[1, combinations % COLOURS][:, None, None]
    return np.clip(found + rng.normal(size=found.shape) * 8, 0, 255).astype(np.uint8)


def captions(combinations):
    """CLS, a word for each half, SEP."""
    ends = (np.full(len(combinations), each) for each in (2, 3))
    words = 10 + combinations // COLOURS, 20 + combinations % COLOURS
    return np.stack([next(ends), *words, next(ends)], axis=1).astype(np.int32)


def batches(permuted):
    """Eight pictures of each combination; no two captions of a step are equal.

    ``permuted`` gives each picture the caption of a random other one.
    """
    rng = np.random.default_rng(0)
    shown = np.tile(COMBINATIONS, 8)
    told = rng.permutation(shown) if permuted else shown
    rows = [
        rng.permutation(len(COMBINATIONS))[:ROWS] + len(COMBINATIONS) * rng.integers(0, 8, ROWS)
        for _ in range(STEPS)
    ]
    return pictures(rng, shown)[rows], captions(told)[rows]


def start():
    shapes = declarations(lambda key: NETWORK.init(key, method="init_all")["params"]).shapes
    flat = {name: leaf.shape for name, leaf in flatten_dict(shapes, sep="/").items()}
    scale = {"head/logit_scale": np.float32(np.log(1 / 0.07))}
    return unflatten_dict(random_tree(flat) | scale, sep="/")


@jax.jit
def trained(params, images, texts):
    """Both losses, as the train step adds them, with Adam: one program for all steps."""
    objective, optimizer = ContrastiveAndMatching(NETWORK), optax.adam(5e-3)
    every = {"picture": jnp.arange(ROWS, dtype=jnp.uint32), "weight": jnp.ones(ROWS)}

    def loss(params, number, image, text):
        rows = every | {"image": image, "text": text, ROW: jnp.arange(ROWS)}
        context = Context(jax.random.fold_in(jax.random.key(0), number), ())
        terms, _ = on_one_device(objective, Variables(params, {}, {}), rows, context)
        means = {name: term.means() for name, term in terms.items()}
        return sum(each["loss"] for each in means.values()), means[MATCHING]["accuracy"]

    def step(carried, batch):
        params, state = carried
        gradients, accuracy = jax.grad(loss, has_aux=True)(params, *batch)
        updates, state = optimizer.update(gradients, state)
        return (optax.apply_updates(params, updates), state), accuracy

    numbered = (jnp.arange(STEPS), images, texts)
    (params, _), accuracy = jax.lax.scan(step, (params, optimizer.init(params)), numbered)
    return params, accuracy


@functools.cache
def learned(permuted=False):
    """Parameters, and the share of right answers in the last steps."""
    params, accuracy = trained(start(), *batches(permuted))
    return params, float(accuracy[-20:].mean())


@jax.jit
def match(params, image, text):
    logits = NETWORK.apply({"params": params}, Inputs(image=image, text=text), method="match")
    return logits[:, 1] - logits[:, 0]


@pytest.fixture(scope="module")
def new():
    """New pictures and the captions of all combinations."""
    return pictures(np.random.default_rng(77), COMBINATIONS), captions(COMBINATIONS)


def of_all_pairs(params, new):
    """Returns the score of each new picture (rows) with each caption (columns)."""
    count = len(COMBINATIONS)
    image, text = np.divmod(np.arange(count**2), count)
    return np.asarray(match(params, new[0][image], new[1][text])).reshape(count, count)


def better_than(scores, wrong):
    """Returns how often a picture's right caption has a larger score than those in ``wrong``."""
    right = np.diag(scores)[:, None]
    return np.mean([(right > scores)[row, wrong[row]].mean() for row in range(len(scores))])


above, below = COMBINATIONS // COLOURS, COMBINATIONS % COLOURS
# A network that knows nothing prefers some colours to others, of which there are few.
CHANCE = 0.2
WRONG = ~np.eye(len(COMBINATIONS), dtype=bool)
HALF_RIGHT = (above[:, None] == above) != (below[:, None] == below)


@pytest.mark.slow
def test_matching_separates_right_from_wrong_pairs(new):
    params, accuracy = learned()
    scores = of_all_pairs(params, new)
    assert accuracy > 0.85  # "No" to every pair is right twice in three times.
    assert better_than(scores, WRONG) > 0.97
    assert better_than(scores, HALF_RIGHT) > 0.93  # It reads both halves and both words.
    assert abs(better_than(of_all_pairs(start(), new), WRONG) - 0.5) < CHANCE


@pytest.mark.slow
def test_permuted_pairs_teach_nothing_about_new_ones(new):
    """The control: the same pictures, captions and steps."""
    params, accuracy = learned(permuted=True)
    assert accuracy < 0.75
    for wrong in (WRONG, HALF_RIGHT):
        assert abs(better_than(of_all_pairs(params, new), wrong) - 0.5) < CHANCE


class Words:
    """Stands in for a tokenizer: a text is the number of its combination."""

    def encode_row(self, text, length):
        assert length == LENGTH
        return captions(np.array([int(text)]))[0]


def gallery(new):
    """New pictures, each with its caption."""
    records = [
        {"id": str(index), "image": tiny.png(image), "captions": [str(index)]}
        for index, image in enumerate(new[0])
    ]
    return Gallery.of(records)


def reranked(params, scores, new, k):
    """Returns the ranks by some scores, and those after re-ranking by the trained network."""
    task = types.SimpleNamespace(
        network=NETWORK,
        model=MODEL,
        pair=types.SimpleNamespace(text_length=LENGTH, batch_size=512),
        rerank=k,
    )
    place = Place(RunConfig(steps=1), LoaderConfig(), tiny.mesh_of(), HostShard())
    found = gallery(new)
    ranks = found.rank(scores)
    return ranks, rerank_both(task, Words(), params, found, scores, ranks, place)


def slowly(scores, again, k):
    """Lists each query's candidates, the best first, and orders the first ``k`` once more."""
    ranks = []
    for query, (row, new_row) in enumerate(zip(scores, again, strict=True)):
        order = sorted(range(len(row)), key=lambda j: (-row[j], j == query, j))
        first = sorted(order[:k], key=lambda j: (-new_row[j], j == query))
        ranks.append(1 + (first + order[k:]).index(query))
    return np.array(ranks)


@pytest.mark.parametrize("k", [1, 10])
def test_reranking_is_that_of_a_slow_statement_within_the_best_k(new, k):
    params, _ = learned()
    rng, matched = np.random.default_rng(3), of_all_pairs(params, new)
    scores = rng.normal(size=matched.shape).astype(np.float32) + np.eye(len(matched)) * 1.5
    before, after = reranked(params, scores.astype(np.float32), new, k)
    expected = Ranks(slowly(scores, matched, k), slowly(scores.T, matched.T, k))
    for old, found, wanted in zip(before, after, expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
        np.testing.assert_array_equal(found[old > k], old[old > k])
        assert (found[old <= k] <= k).all() and (old <= k).any() and (old > k).any()
        assert (found != old).any() == (k > 1)


def test_reranking_helps_where_embeddings_cannot_tell_but_matching_can(new):
    """Eight captions have the right colour above; the scores are those of this colour alone."""
    params, _ = learned()
    blind = (above[:, None] == above).astype(np.float32)
    before, after = (recalls(each, (1, COLOURS)) for each in reranked(params, blind, new, COLOURS))
    for way in ("image_to_text", "text_to_image"):
        assert before[f"{way}/recall_1"] == 0 and before[f"{way}/recall_{COLOURS}"] == 1
        assert after[f"{way}/recall_1"] > 0.7 and after[f"{way}/recall_{COLOURS}"] == 1
    untrained = recalls(reranked(start(), blind, new, COLOURS)[1], (1,))
    assert max(untrained.values()) < 0.35  # The control: chance among eight.
