"""Pages of fine-tuned runs: what their evaluation wrote, and what they answer."""

import pytest

from tests.report.pages import checked
from tests.tasks import (
    captioned_world,
    labelled_world,
    masked_world,
    paired_world,
    statement_world,
)
from tests.tasks.finetuned import evaluated
from vlbeit_jax.data.examples.segmented import mask_of
from vlbeit_jax.data.source import open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.report.answers import answer_cards
from vlbeit_jax.report.page import write_report
from vlbeit_jax.runtime.start import train
from vlbeit_jax.types import Kind

STEPS = 12  # More than the steps of warm-up.


def classifier(folder):
    sets = labelled_world.prepare(folder, "pictures", Kind.LABELLED_IMAGES)
    return sets, labelled_world.image_config(sets, STEPS)


def retrieval(folder):
    sets = paired_world.prepare(folder, Kind.PAIRS)
    task = paired_world.retrieval_task(sets, paired_world.tokenizer_in(folder))
    return sets, paired_world.config(task, STEPS)


def questions(folder):
    sets = paired_world.prepare(folder, Kind.QUESTIONS)
    task = paired_world.vqa_task(sets, paired_world.tokenizer_in(folder))
    return sets, paired_world.config(task, STEPS)


def captions(folder):
    sets = captioned_world.prepare(folder)
    task = captioned_world.captioning_task(sets, captioned_world.tokenizer_in(folder), beams=1)
    return sets, paired_world.config(task, STEPS)


def statements(folder):
    sets = statement_world.prepare(folder)
    task = statement_world.reasoning_task(sets, paired_world.tokenizer_in(folder))
    return sets, paired_world.config(task, STEPS)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (classifier, ("share of the most frequent class", "Accuracy by class", "red")),
        pytest.param(
            retrieval,
            ("The picture of the caption is among the best 10", "captions of all pictures shown"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            questions,
            ("most frequent answer", "what is above?"),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            statements,
            ("All pictures of a statement right", "share that a coin reaches", "first red"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_fine_tuned_run_has_a_page(make, told, tmp_path):
    sets, config = make(tmp_path)
    run = tmp_path / "run"
    train(config, run)
    results = evaluated(run, sets, "test")
    page = checked(write_report(run, [], results, tmp_path).read_text())
    for text in (*told, "95% interval", "How the figures were measured", "64 train", "48 test"):
        assert text in page.words, text
    assert page.words.count("✓ right") + page.words.count("✗ wrong") == 12
    seen = results | {"protocol": results["protocol"] | {"split": "train"}}
    known = checked(write_report(run, [str(sets)], seen, tmp_path).read_text())
    assert (
        known.words.count("✗ training data") == 2
        and "was trained on, not of new ones" in known.words
    )
    logged = checked(write_report(run, [], None, tmp_path).read_text())
    assert "the last figures of the run's own log" in logged.words
    with pytest.raises(UsageError, match="--results is of a pretraining run"):
        write_report(run, [], {"mim": {}}, tmp_path)


def test_a_statement_shows_both_pictures_the_first_one_on_the_left(tmp_path):
    """A card needs no model: a right and a wrong answer."""
    sets = statement_world.prepare(tmp_path)
    records = open_set(str(sets)).records("train")
    asked = [dict(records[index]) for index in (0, 8)]  # One is false, and one is true.
    likely = [{"top": [("true", 0.9), ("false", 0.1)]}] * 2
    cards = answer_cards(asked, likely)
    assert cards.count("<img") == 4 and cards.count("wrong") == cards.count("right") == 1
    assert cards.count("Right: <strong>false</strong>") == 1 and "first red" in cards
    names = [f"{which} picture of record 0/0" for which in ("First", "Second")]
    assert cards.index(names[0]) < cards.index(names[1])


def test_masks_of_the_model_lie_over_the_picture_beside_those_of_people(tmp_path):
    """A card needs no model: half of the pixels are right."""
    sets = masked_world.prepare(tmp_path)
    record = dict(open_set(str(sets)).records("test")[0])
    half = mask_of(record).copy()
    half[:16] = (half[:16] + 1) % 3
    cards = answer_cards([record], [{"mask": half, "classes": [("red", 0.25), ("blue", 0.75)]}])
    assert cards.count("<img") == 3 and "<strong>50.0%</strong> of the pixels" in cards
    assert cards.index("people") < cards.index("the model") and "<li>red 25%</li>" in cards


@pytest.mark.slow
def test_the_page_of_segmentation_has_its_figures(tmp_path):
    sets = masked_world.prepare(tmp_path)
    config = paired_world.config(masked_world.segmentation_task(sets), STEPS)
    train(config, tmp_path / "run")
    results = evaluated(tmp_path / "run", sets, "test")
    page = checked(write_report(tmp_path / "run", [], results, tmp_path).read_text())
    assert page.words.count("of the pixels are right") == 12
    for text in ("mIoU: overlap of the model's masks", "IoU", "95% interval", "12 test"):
        assert text in page.words, text


@pytest.mark.slow
def test_captions_stand_beside_those_of_people(tmp_path):
    sets, config = captions(tmp_path)
    train(config, tmp_path / "run")
    results = evaluated(tmp_path / "run", sets, "test")
    page = checked(write_report(tmp_path / "run", [], results, tmp_path).read_text())
    assert page.words.count("The model:") == page.words.count("People:") == 12
    for text in (
        "CIDEr-D: agreement with the captions that people wrote",
        "score of the same captions for wrong pictures",
        "captions of the 48 images that are scored",
        "95% interval",
    ):
        assert text in page.words, text
    cards = page.words.rpartition("Examples")[2].partition("Where the model looks")[0]
    assert "People:" in cards and "right" not in cards and "likeliest" not in page.words
