"""The page with answers: the chosen run's, right ones apart from wrong ones, in one file."""

import base64
import json

import numpy as np
import pytest

from tests.report.pages import checked
from tools.emoji import sets
from tools.emoji.folds import fold_of
from tools.transfer import pictures, retrieval
from tools.transfer.finetune import RESULTS, study_of
from tools.transfer.fit import ANSWERS
from vlbeit_jax.data.examples.labelled import as_text
from vlbeit_jax.data.examples.segmented import mask_of
from vlbeit_jax.data.identity import TEST
from vlbeit_jax.data.masks import mask_bytes
from vlbeit_jax.data.source import open_set
from vlbeit_jax.report.verdicts import Level
from vlbeit_jax.tasks.ranking import Gallery

CHOSEN = {"pretrained": {"chosen": [0.002, 0.001, 0.001]}}  # The first one is shown.
RESULT = {
    "vqa_cell": {
        "accuracy_by_group": {
            "pretrained": 0.25,
            "random": 0.2,
            "floors": {"a<b": 0.1},
            "seeds": 3,
            "gain": {"value": 0.05, "low": -0.01, "high": 0.11},
        }
    }
}


def write(folder, answers, of_other_folds=None):
    """Writes what two runs answered; the other folds' run fails when used, if it has no answers."""
    for rate, what in ((0.002, answers), (0.001, of_other_folds)):
        place = folder / "runs" / f"pretrained_{rate:g}_0"
        place.mkdir(parents=True)
        (place / ANSWERS).write_text(json.dumps({"answers": what}))
    (folder / RESULTS).write_text(json.dumps({"protocol": {"rates": CHOSEN}}))


@pytest.fixture
def studies(tmp_path, monkeypatch):
    """Every third emoji and question is answered rightly; each caption finds the next picture."""
    by_split = sets.by_split
    monkeypatch.setattr(
        sets,
        "by_split",
        lambda found, fold: {
            split: records[:9] for split, records in by_split(found, fold).items()
        },
    )
    for name in ("emoji_category", "vqa_cell"):
        study_of(name).prepare(tmp_path / name)
        records = open_set(str(tmp_path / name / "sets" / "0")).records(TEST)
        ids = [as_text(records[number]["id"]) for number in range(len(records))]
        answers = {each: [float(n % 3 == 0), f"<said {n}>"] for n, each in enumerate(ids)}
        write(tmp_path / name, {TEST: answers})
    count = open_set(retrieval.SET).count("validation")
    best = (np.arange(count)[:, None] + np.arange(2)) % count
    best[0] = (1, 2)  # The first caption does not find its own picture.
    # The rate for a third of the pictures is that of its fold.
    pairs = open_set(retrieval.SET).records("validation")
    gallery = Gallery.of(pairs)
    folds = [fold_of(as_text(gallery.images[owner]["id"])) for owner in gallery.owner.tolist()]
    first = {"of_images": [7] * len(folds), "best_images": best.tolist()}
    others = {"of_images": [8] * len(folds), "best_images": best.tolist()}
    write(tmp_path / "retrieval", first, others)
    (tmp_path / "places").write_text(json.dumps([7 if fold == 0 else 8 for fold in folds]))
    return tmp_path


def test_right_and_wrong_answers_are_shown(studies):
    page = pictures.page(RESULT, studies)
    assert "right: 3 of 9" in page and "wrong: 6 of 9" in page  # Emoji.
    assert "right: 12 of 36" in page and "wrong: 24 of 36" in page  # Questions about four cells.
    assert "<strong>&lt;said 0&gt;</strong></figcaption>" in page and "<said" not in page
    assert "<strong>&lt;said 1&gt;</strong>, right: " in page
    assert page.count("What is at the ") == 2 * pictures.SHOWN_ANSWERS
    assert page.count("1 ✓</figcaption>") == pictures.SHOWN_CAPTIONS - 1
    places = json.loads((studies / "places").read_text())
    shown = [places[number] for number in pictures._spread(len(places), pictures.SHOWN_CAPTIONS)]
    assert set(shown) == {7, 8}
    for place in (7, 8):
        assert page.count(f"its own: place {place} of") == shown.count(place)
    figures = 3 * pictures.SHOWN_CAPTIONS + (3 + 6) + 2 * pictures.SHOWN_ANSWERS
    assert page.count("<img ") == page.count('src="data:image/png;base64,') == figures
    assert "a&lt;b\N{NO-BREAK SPACE}0.100" in page and "-0.010 to +0.110" in checked(page).words
    assert "this study does not show that the pretrained start is better" in page
    checked(page)  # Well-formed, and the file needs nothing else.


def test_a_gain_below_a_floor_is_no_success():
    found = {"gain": {"value": 0.1, "low": 0.05, "high": 0.15}, "pretrained": 0.3}
    assert pictures.verdict(found | {"floors": {"majority": 0.2}}).level == Level.GOOD
    below = pictures.verdict(found | {"floors": {"majority": 0.2, "pixel_ridge": 0.3}})
    assert below.level == Level.UNCLEAR and "not above this floor: pixel ridge" in below.reason


def test_predicted_masks_lie_over_their_pictures(studies):
    """The first scene is right, the others are all background; without the part there is a page."""
    without = pictures.page(RESULT, studies)
    folder = studies / "segmentation"
    study_of("segmentation").prepare(folder)
    records = open_set(str(folder / "sets" / "0")).records(TEST)
    masks = {}
    for number in range(3):
        mask = mask_of(records[number])
        given = mask if number == 0 else np.zeros_like(mask)
        masks[as_text(records[number]["id"])] = base64.b64encode(mask_bytes(given)).decode()
    write(folder, {"masks": masks})
    page = pictures.page(RESULT, studies)
    title = "Classes of the pixels of three emoji"
    assert title in page and title not in without
    assert page.count("of the pixels</figcaption>") == 3
    assert page.count("model: 100% of the pixels</figcaption>") == 1
    assert page.count("<img") == without.count("<img") + 9
