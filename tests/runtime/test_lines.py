"""A line of figures shows what matters in 160 characters, whatever the task."""

import math
import re

import pytest

from vlbeit_jax.objectives.masked_prediction import TERM_NAMES
from vlbeit_jax.runtime.lines import WIDTH, legend, line, number
from vlbeit_jax.tasks.open_retrieval import OpenRetrieval
from vlbeit_jax.tasks.open_vqkd import OpenVQKD
from vlbeit_jax.tasks.probing import HEADLINES as PROBED

TIMES = {"samples_per_second": 150.2, "data_wait": 0.002, "checkpoint_wait": 0.0, "goodput": 0.9}
STEP = {"grad_norm": 2.0, "refused": 0.0, "update_norm": 0.3, "learning_rate": 1e-3} | TIMES


def term(name, loss=2.0, accuracy=0.25, **baselines):
    given = {"loss": loss, "accuracy": accuracy, "chance": 0.004} | baselines
    return {f"{name}/{kind}": value for kind, value in given.items()}


def masked(**values):
    figures = {"count": 7.0, "unigram": 0.07} | values
    return {k: v for name in TERM_NAMES for k, v in term(name, **figures).items()}


def test_a_term_shows_its_loss_and_its_accuracy_beside_the_baseline():
    said = line(5, 20, "train", term("mim", unigram=0.1) | STEP, time="3m05s left")
    assert said == (
        "step  5/20 train:      mim loss 2.000 accuracy 25.0% > unigram 10.0% | 3m05s left"
    )
    assert "25.0% < unigram 30.0%" in line(5, 20, "train", term("mim", unigram=0.3))
    assert "25.0% = unigram 25.0%" in line(5, 20, "train", term("mim", unigram=0.25))


@pytest.mark.parametrize("baseline", ["unigram", "majority", "prior"])
def test_chance_is_shown_only_if_there_is_nothing_better(baseline):
    assert "> chance 0.40%" in line(1, 1, "train", term("class"))
    said = line(1, 1, "validation", term("class", **{baseline: 0.1}))
    assert f"> {baseline} 10.0%" in said and "chance" not in said


def test_four_terms_fit_and_the_legend_says_what_their_numbers_mean():
    figures = masked() | STEP
    said = line(400, 4400, "train", figures, time="15m52s left")
    assert said == (
        "step  400/4400 train:      mim 2.000 25.0% >  7.0 | mlm 2.000 25.0% >  7.0 | "
        "mvlm_image 2.000 25.0% >  7.0 | mvlm_text 2.000 25.0% >  7.0 | 15m52s left"
    )
    assert legend(figures, (), 4400) == (
        "each term below: its loss, its accuracy in %, > above or < below the unigram baseline"
    )
    # A line that spells its terms out needs none.
    assert legend(term("mim", unigram=0.1) | STEP, (), 4400) == ""


def test_lines_of_a_run_are_aligned():
    said = [
        line(step, 4400, split, masked(**values), time="9s left")
        for step, split, values in (
            (5, "train", {"loss": 11.07, "accuracy": 0.0, "unigram": 0.004}),
            (4400, "validation", {"loss": 0.5, "accuracy": 0.999, "unigram": 0.123}),
        )
    ]
    places = [[found.start() for found in re.finditer(r"\||%|[<>]", each)] for each in said]
    assert places[0] == places[1] and len(places[0]) == 4 * 3


@pytest.mark.parametrize("split", ["train", "validation", "validation_ema"])
@pytest.mark.parametrize("steps", [60, 4400, 480_000, 10_000_000])
@pytest.mark.parametrize("loss", [11.07, 1e-4, 1234.5, math.nan, math.inf])
@pytest.mark.parametrize("slow", [0.0, 0.45])
def test_a_line_of_pretraining_has_all_accuracies_and_fits(split, steps, loss, slow):
    figures = masked(loss=loss, accuracy=1.0)
    if split == "train":
        figures |= STEP | {"data_wait": slow, "refused": 2.0}
    said = line(steps // 2, steps, split, figures, time="12d03h left")
    assert len(said) <= WIDTH and said.count("100.0%") == 4 and said.endswith(" | 12d03h left")
    assert ("2 refused" in said) == (split == "train")
    assert ("data wait 45%" in said) == (split == "train" and slow > 0)


def test_refused_steps_and_slow_data_are_shown_and_nothing_else_is():
    said = line(1, 2, "train", term("fit") | STEP)
    assert "refused" not in said and "wait" not in said
    bad = STEP | {"refused": 1.0, "data_wait": 0.0123, "checkpoint_wait": 0.2}
    said = line(1, 2, "train", term("fit") | bad, time="1s left")
    assert said.endswith(" | 1 refused | data wait 1% | checkpoint wait 20% | 1s left")


TASKS = {
    "vqkd train": (
        {"commitment/loss": 0.002, "distillation/loss": 0.04, "codes_used": 256, "dead_codes": 0}
        | {"perplexity": 157.6, "reseeded": 3.16}
        | STEP,
        OpenVQKD.headlines,
        "commitment loss 0.0020 | distillation loss 0.0400 | codes in use 256 | perplexity 157.6",
    ),
    "vqa validation": (
        {"answer/accuracy": 0.3, "answer/count": 9, "answer/prior": 0.22, "answer/covered": 0.9}
        | {"answer/accuracy_other": 0.1},
        OpenRetrieval.headlines,  # Of another task: its figures are not there.
        "answer 30.0% > prior 22.0%",
    ),
    "class validation": (
        term("class", accuracy=0.4, majority=0.2, top5=0.9, mean_class=0.3),
        (),
        "class loss 2.000 accuracy 40.0% > majority 20.0%",
    ),
    "retrieval validation": (
        {
            f"{kind}/{name}/recall_{cut}": 0.05 * cut
            for kind in ("retrieval", "reranked", "chance")
            for name in ("image_to_text", "text_to_image")
            for cut in (1, 5)
        },
        OpenRetrieval.headlines,
        "text R@1  5.0% =  5.0 | image R@1  5.0% =  5.0 | reranked text R@1  5.0% =  5.0 | rerank",
    ),
    "probes": (
        {f"probe/{name}/{kind}": 0.5 for name in ("image", "text") for kind in ("ridge", "x")}
        | {"probe/image/majority": 0.25, "probe/text/majority": 0.75, "probe/seconds": 3.0},
        PROBED,
        "image ridge 50.0% > majority 25.0% | text ridge 50.0% < majority 75.0%",
    ),
    "a task that declares nothing": (
        {"line/slope": 1.5, "line/error": 0.5},
        (),
        "line/slope 1.5 | line/error 0.5",
    ),
}


@pytest.mark.parametrize("name", TASKS)
def test_every_task_shows_what_it_declares(name):
    figures, headlines, expected = TASKS[name]
    said = line(100, 400, "validation", figures, headlines, time="2m05s left")
    assert expected in said and len(said) <= WIDTH


def test_more_terms_than_fit_are_counted():
    figures = {k: v for n in range(40) for k, v in term(f"stream_{n:02d}").items()}
    said = line(1, 2, "train", figures, time="1s left")
    shown, more = said.count("25.0%"), re.search(r"  (\d+) more \| 1s left$", said)
    assert more and shown > 2 and shown + int(more[1]) == 40 and len(said) <= WIDTH


def test_numbers_keep_their_width_and_small_ones_their_digits():
    same = (0.0, 0.1, 1.0, 9.9994, 11.07, 123.4, 1234.5, 99999.0, 1e7, math.nan, math.inf)
    assert {len(number(x)) for x in same} == {5}
    said = {0.04: "0.0400", 0.0013: "0.0013", 9.6e-4: "9.6e-4", 1.2e-7: "1.2e-7"}
    assert {x: number(x) for x in said} == said
