"""The exported evaluation ranks and scores as the metrics of this package do."""

import numpy as np
import pytest
import torch

from vlbeit_jax.convert import verify
from vlbeit_jax.convert.formats.torch_module import STANDALONE
from vlbeit_jax.convert.heads.vqa import answer_scores
from vlbeit_jax.metrics import retrieval
from vlbeit_jax.metrics.vqa import Rule, vqa_score


def test_ranks_are_ours_when_scores_are_equal():
    """Whole numbers from 0 to 3 tie often. A plain sort would rank otherwise."""
    with verify.importable(STANDALONE):
        module = verify.module_of(STANDALONE / "evaluate_finetuned.py")
    rng = np.random.default_rng(0)
    owner = np.repeat(np.arange(12), 3)
    scores = rng.integers(0, 4, (12, 36)).astype(np.float32)
    again = rng.integers(0, 4, (12, 36)).astype(np.float32)
    own = owner == np.arange(12)[:, None]
    wanted = retrieval.rank(scores, owner)
    there = torch.from_numpy(scores), torch.from_numpy(own)
    ranks = module.ranks_of(*there)
    assert (ranks.numpy() == wanted.of_texts).all()
    turned = module.ranks_of(there[0].T, there[1].T)
    assert (turned.numpy() == wanted.of_images).all()
    best = retrieval.candidates(scores, own, 5)
    assert (module.candidates(*there, 5).numpy() == best).all()
    assert (there[0].topk(5).indices.numpy() != best).any()
    among = np.take_along_axis(own, best, axis=1), np.take_along_axis(again, best, axis=1)
    found = module.reranked(ranks, *map(torch.from_numpy, among))
    assert (found.numpy() == retrieval.rerank(wanted.of_texts, *among)).all()


@pytest.mark.parametrize("rule", Rule)
def test_answers_have_the_scores_of_the_metric(rule):
    """Also where everybody gave one answer, which is then compared as it is written."""
    names = ("2", "yes", "red", "tan")
    numbers = {name: number for number, name in enumerate(names)}
    for answers in (["Two"] * 10, ["yes"] * 10, ["Yes!"] * 4 + ["two"] * 3 + ["a red", "red", "x"]):
        found = answer_scores(answers, numbers, rule)
        wanted = [vqa_score(name, answers, rule) for name in names]
        assert [found.get(number, 0.0) for number in range(len(names))] == wanted
    assert len(found) == 3
