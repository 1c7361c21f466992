"""Evaluation and report as a user runs them, on runs of a few steps with any set of streams."""

import json
import shutil

import cv2
import numpy as np
import pytest

from tests import tiny
from tests.report.pages import checked
from vlbeit_jax.data.source import VALIDATION, open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.report import codebook
from vlbeit_jax.report.page import write_report
from vlbeit_jax.report.samples import Fate, masked_texts, pictures, spread
from vlbeit_jax.runtime.machine import usable_cores
from vlbeit_jax.runtime.pretrained import open_run
from vlbeit_jax.tasks.masked_pictures import MASK_GREY

FIGURES = {"accuracy": 0.2, "unigram": 0.1, "chance": 0.01, "loss": 3.0, "count": 1000}


@pytest.fixture
def run(pretrained):
    return pretrained


def test_evaluate_and_report_from_the_command_line(run, world, tmp_path):
    results, out = tmp_path / "results.json", tmp_path / "out"
    done = tiny.command(
        "vlbeit_jax.evaluate",
        f"--from={run}",
        f"--data={world.pairs}",
        f"--data={world.texts}",
        f"--json={results}",
        "--draws=1",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(results.read_text())
    assert {"mim", "mlm", "mvlm_image", "mvlm_text", "gain_text", "gain_image"} <= found.keys()
    assert all(f"{term} " in done.stdout for term in ("mim", "mvlm_text", "gain_text"))
    low, high = found["mim"]["accuracy_interval"]
    assert low < found["mim"]["accuracy"] < high
    done = tiny.command(
        "vlbeit_jax.report", f"--from={run}", f"--results={results}", f"--out={out}"
    )
    assert done.returncode == 0, done.stderr
    page = checked((out / "report.html").read_text())
    assert f"{found['mvlm_text']['accuracy']:.2%}" in page.words
    assert f"{100 * found['gain_text']['value']:+.2f} points" in page.words
    assert page.words.count("Guesses with a wrong picture") == 12
    assert "with its 95% interval" in page.words and "approximate" not in page.words
    assert f"CPU, {usable_cores()} core" in page.words and "60 of 60" in page.words
    for told in ("48 train", "16 validation", "Licence", "jax 0.", "unigram baseline"):
        assert told in page.words, told
    assert page.words.count("of the attention goes to patches") == 6
    for name in ("accuracy", "loss", "codebook", "pictures", "tokenizer_loss", "attention"):
        image = cv2.imread(str(out / f"{name}.png"))
        assert image is not None and image.std() > 5, name


@pytest.mark.parametrize(
    ("schedule", "sections"),
    [
        ("text", {"texts"}),
        ("text+pair", {"patches", "captions", "texts"}),
        pytest.param("image", {"patches"}, marks=pytest.mark.slow),
        pytest.param("pair", {"patches", "captions"}, marks=pytest.mark.slow),
        pytest.param("image,text", {"patches", "texts"}, marks=pytest.mark.slow),
    ],
)
def test_a_run_with_any_streams_has_a_page(run, schedule, sections, tmp_path):
    folder = with_streams(run, schedule, tmp_path)
    page = checked(write_report(folder, [], None, tmp_path).read_text())
    shown = {
        name: f"Hidden {what}" in page.words
        for name, what in (
            ("patches", "patches"),
            ("captions", "words of captions"),
            ("texts", "words of texts"),
        )
    }
    assert {name for name in shown if shown[name]} == sections
    assert ("visual tokens occur" in page.words) == ("patches" in sections)
    # The log's own figures, of the trained streams and others, which are told apart.
    judged = ("image" in schedule) + ("text" in schedule) + 2 * ("pair" in schedule)
    assert page.words.count("– not trained") == 4 - judged
    assert "The figures are the last ones of the run's own log" in page.words
    assert ("Do pictures and captions help" in page.words) == ("pair" in schedule)


def with_streams(run, schedule, tmp_path):
    """A copy of a run, as if it had been trained on some streams only."""
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    config = json.loads((folder / "config.json").read_text())
    config["task"]["schedule"] = schedule
    (folder / "config.json").write_text(json.dumps(config))
    if schedule == "text":
        shutil.rmtree(folder / "visual_tokenizer")
    if schedule == "image":
        shutil.rmtree(folder / "text_tokenizer")
    return folder


def test_a_run_of_the_visual_tokenizer_has_a_page(world, tmp_path):
    page = checked(write_report(world.vqkd, [], None, tmp_path).read_text())
    assert "visual tokens occur in the 16 held-out pictures" in page.words
    assert "drawn from visual tokens" in page.words and page.pictures >= 2 * 12
    assert "Visual token" in page.words and "unigram" not in page.words
    with pytest.raises(UsageError, match="leave --results out"):
        write_report(world.vqkd, [], {"mim": FIGURES}, tmp_path)


def test_a_page_looks_at_a_bounded_number_of_pictures(world, tmp_path, monkeypatch):
    monkeypatch.setattr(codebook, "MOST_PICTURES", 5)
    counted = []
    count = codebook.code_use
    monkeypatch.setattr(
        codebook, "code_use", lambda *given: counted.append(count(*given)) or counted[0]
    )
    page = checked(write_report(world.vqkd, [], None, tmp_path).read_text())
    assert "in 5 of 16 held-out pictures, evenly spaced" in page.words
    (counts,) = counted
    assert counts.sum() == 5 * 16  # Patches of the five pictures, and none of the padding.


def test_a_page_outlives_the_data_of_its_run(run, tmp_path):
    folder = with_streams(run, "text", tmp_path)
    text = (folder / "config.json").read_text()
    gone = json.loads(text)
    gone["task"]["text"]["sources"] = ["nowhere"]
    (folder / "config.json").write_text(json.dumps(gone))
    page = checked(write_report(folder, [], {"mlm": FIGURES}, tmp_path).read_text())
    assert "cannot be opened now" in page.words and "Give prepared data with --data" in page.words
    with pytest.raises(UsageError, match="does not exist"):
        write_report(folder, ["nowhere"], None, tmp_path)


def test_a_failure_looks_like_one(run, world, tmp_path):
    results = {
        "mlm": FIGURES | {"accuracy": 0.05},
        "mvlm_text": FIGURES,
        "gain_text": {"value": 0.01, "low": -0.01, "high": 0.03},
        "step": 30,
    }
    page = write_report(run, [str(world.pairs)], results, tmp_path).read_text()
    found = checked(page).words
    assert "✗ not above its unigram baseline" in found and "only how frequent" in found
    assert "The interval holds 0: this run does not show that the model uses the picture" in found
    assert "The figures are of step 30, but the newest checkpoint is of step 60" in found
    assert page.count("verdict bad") >= 2  # In short, and in the table.
    assert page.count("? another step") == 2
    with pytest.raises(UsageError, match="holds none of mim"):
        write_report(run, [], {"metrics": {}}, tmp_path)


def test_pictures_are_masked_where_the_model_was_asked(run, world):
    opened, records = open_run(run), spread(open_set(str(world.pairs)).records(VALIDATION), 4)
    found = pictures(opened, records)
    grey = (found.masked == MASK_GREY).all(axis=-1)
    patches = grey.reshape(4, 4, 8, 4, 8).all(axis=(2, 4))
    assert (patches.sum(axis=(1, 2)) == 6).all()
    np.testing.assert_array_equal(found.masked[~grey], found.original[~grey])
    assert found.through_tokens.shape == found.predicted.shape == found.original.shape
    assert pictures(opened, records, "pair").original.shape == found.original.shape


def test_texts_are_masked_where_the_model_was_asked(run, world):
    opened, records = open_run(run), spread(open_set(str(world.pairs)).records(VALIDATION), 12)
    fates = set()
    for each in masked_texts(opened, records, "pair"):
        assert not np.array_equal(each.image, each.other)
        for guess in each.guesses:
            fates.add(guess.fate)
            seen = each.pieces[guess.position]
            if guess.fate is Fate.HIDDEN:
                assert seen.text == "?"
            else:
                assert (seen == guess.truth) == (guess.fate is Fate.KEPT)
            for answer in (guess.own, guess.wrong):
                shares = [share for _, share in answer.likeliest]
                assert len(shares) == 5 and shares == sorted(shares, reverse=True)
                assert 0 < sum(shares) <= 1 + 1e-5 and 0 <= answer.of_truth <= shares[0]
    assert Fate.HIDDEN in fates and len(fates) > 1
    rows = spread(open_set(str(world.tokens)).records(VALIDATION), 3)
    alone = masked_texts(opened, rows, "text")
    assert all(each.image is None and each.guesses[0].wrong is None for each in alone)


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        (
            "vlbeit_jax.evaluate",
            ["--from=nowhere", "--data=sample:pairs", "--json=out.json"],
            "not the folder of a run",
        ),
        (
            "vlbeit_jax.evaluate",
            ["--from={run}", "--data=nowhere", "--json={tmp}/out.json"],
            "does not exist",
        ),
        (
            "vlbeit_jax.evaluate",
            ["--from={run}", "--data=sample:pairs", "--json={tmp}/no/out.json"],
            "cannot be written",
        ),
        (
            "vlbeit_jax.evaluate",
            ["--from={run}", "--data=sample:pairs", "--json={tmp}/out.json", "--weights=ema"],
            "--weights is for a fine-tuned run",
        ),
        (
            "vlbeit_jax.evaluate",
            ["--from={run}", "--data=sample:pairs", "--json={tmp}/out.json", "--split=train"],
            "--split=train is for a fine-tuned run",
        ),
        (
            "vlbeit_jax.report",
            ["--from={run}", "--data=sample:emoji", "--out={tmp}/out"],
            "nothing in sample:emoji can be scored",
        ),
        (
            "vlbeit_jax.report",
            ["--from={run}", "--data=sample:pairs", "--results={tmp}/none", "--out={tmp}/out"],
            "vlbeit_jax.evaluate",
        ),
    ],
)
def test_mistakes_are_answered_in_one_message(run, tmp_path, module, arguments, message):
    done = tiny.command(module, *[argument.format(run=run, tmp=tmp_path) for argument in arguments])
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
