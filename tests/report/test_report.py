"""Evaluation and report as a user runs them, on a run of a few steps."""

import json
import re

import cv2
import numpy as np
import pytest

from tests import tiny


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
    done = tiny.command(
        "vlbeit_jax.report",
        f"--from={run}",
        f"--data={world.pairs}",
        f"--results={results}",
        f"--out={out}",
    )
    assert done.returncode == 0, done.stderr
    page = (out / "report.html").read_text()
    assert not re.search(r"(src|href)=(?!['\"]?data:)", page), "the page must stand alone"
    assert (
        f"{found['mvlm_text']['accuracy']:.2%}" in page
        and f"{found['gain_text']['value']:+.2%}" in page
    )
    assert page.count("with the wrong image") == 12
    for name in ("accuracy", "loss", "codebook", "pictures", "tokenizer_loss"):
        image = cv2.imread(str(out / f"{name}.png"))
        assert image is not None and image.std() > 5, name


def test_pictures_are_masked_where_the_model_was_asked(run, world):
    from vlbeit_jax.data.source import VALIDATION, open_set
    from vlbeit_jax.report.samples import captions, pictures, spread
    from vlbeit_jax.runtime.pretrained import open_run
    from vlbeit_jax.tasks.masked_pictures import MASK_GREY

    opened, records = open_run(run), spread(open_set(str(world.pairs)).records(VALIDATION), 4)
    found = pictures(opened, records)
    grey = (found.masked == MASK_GREY).all(axis=-1)
    patches = grey.reshape(4, 4, 8, 4, 8).all(axis=(2, 4))
    assert (patches.sum(axis=(1, 2)) == 6).all()
    np.testing.assert_array_equal(found.masked[~grey], found.original[~grey])
    assert found.through_tokens.shape == found.predicted.shape == found.original.shape
    for caption in captions(opened, records):
        assert not np.array_equal(caption.image, caption.other)
        for guess in caption.guesses:
            assert len(guess.right) == len(guess.wrong) == 5
            shares = [share for _, share in guess.right]
            assert shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 1 + 1e-5


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
            "vlbeit_jax.report",
            ["--from={run}", "--data=sample:texts", "--out={tmp}/out"],
            "holds texts, but pairs",
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
