"""What ``prepare`` says at its end: warnings, each with what to do; and that it decodes once."""

import re

import pytest

from tests.make_data import build, encoded, picture, write_tar
from vlbeit_jax.data.identity import TEXTS, TRAIN, VALIDATION
from vlbeit_jax.prepare import pictures
from vlbeit_jax.prepare.decide import REPORT
from vlbeit_jax.prepare.describe import warnings
from vlbeit_jax.types import Kind

SOUND = {
    "counts": {TRAIN: 90, VALIDATION: 10},
    "items": 100,
    "keys": {TRAIN: {TEXTS: 90}, VALIDATION: {TEXTS: 10}},
    "dropped": {"no_caption": 5},
    "left_out": {"caption_in_training": 5},
    "duplicates": 5,
    "bad_inputs": [],
}


def test_a_sound_set_has_no_warning():
    """Five of a hundred are not worth one."""
    assert list(warnings(SOUND)) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"keys": {TRAIN: {TEXTS: 1}}}, "all 90 train records have the same text; look at"),
        ({"counts": {TRAIN: 100}}, "no record is held out, .*raise --validation_share"),
        ({"counts": {VALIDATION: 100}}, "no record is left to train on"),
        ({"dropped": {"no_caption": 6}}, "6% of the items were dropped as no_caption"),
        ({"left_out": {"caption_in_training": 6}}, "6% .* left out as caption_in_training"),
        ({"duplicates": 6}, "6 records are byte-equal copies of others; --deduplicate merges"),
        ({"bad_inputs": [["a.tar", "is cut off"]]}, "a.tar was skipped: is cut off"),
    ],
)
def test_a_warning_says_what_to_do(changed, said):
    (found,) = warnings(SOUND | changed)
    assert re.match(said, found), found


@pytest.mark.skipif(not pictures.REPORTS_CUTS, reason="OpenCV 4 does not report cut files")
def test_a_picture_is_decoded_once(tmp_path, monkeypatch):
    """Also where it is made smaller, where it is transparent, and where alike ones are counted."""
    modes, decoded = ("RGB", "RGBA"), []
    members = [
        (f"{n:02d}.png", encoded(picture(n, 80, 90), "PNG", modes[n % 2])) for n in range(20)
    ]
    for function in (pictures._decoded, pictures._on_white):
        monkeypatch.setattr(pictures, function.__name__, _counted(function, decoded))
    tar, limits = write_tar(tmp_path / "a.tar", members), pictures.Limits(short_side=40)
    build(tmp_path / "set", Kind.IMAGES, [tar], limits=limits, near_duplicates=REPORT)
    assert len(decoded) == len(members)


def _counted(function, calls):
    def call(*given):
        calls.append(given)
        return function(*given)

    return call
