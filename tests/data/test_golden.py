"""The first batches of a fixed data set are pinned: ids, masks, crop boxes, captions.

Nothing here depends on a library's random numbers or encoder: pictures are uncompressed, word
pieces are letters. If this test fails, a run that resumes would see other examples than before.
Fix the change, not the numbers.
"""

import contextlib
import itertools
import json
import pathlib
import zlib

import numpy as np
import pytest

from vlbeit_jax.config.streams import ImageStreamConfig, PairStreamConfig
from vlbeit_jax.data import image as images
from vlbeit_jax.data.draws import framed
from vlbeit_jax.data.examples.masked import MaskedExample
from vlbeit_jax.data.pipeline import batches
from vlbeit_jax.data.rematch import wrong_partners
from vlbeit_jax.data.sampling import EvaluationExamples, TrainingExamples
from vlbeit_jax.data.source import TRAIN, VALIDATION, open_set
from vlbeit_jax.data.text import TextTokenizer, row_of
from vlbeit_jax.prepare.writer import write_set
from vlbeit_jax.types import Kind

PINNED = pathlib.Path(__file__).parent / "golden.json"
HEIGHT, WIDTH = 30, 40


class Letters(TextTokenizer):
    """A piece for every byte, after the specials; words open with a capital."""

    vocabulary = 300
    fingerprint = "letters"
    word_starts = np.array([65 <= piece - 5 < 91 for piece in range(300)])

    def __init__(self):
        pass

    def encode_row(self, text, length):
        return row_of([5 + byte for byte in text.encode()][: length - 2], length)


def pixmap(number):
    """A picture without compression, so that no encoder's release changes a byte."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    pixels = np.stack([rows * 8 + number, columns * 6, rows * columns % 256], axis=2).astype(
        np.uint8
    )
    return b"P6\n%d %d\n255\n" % (WIDTH, HEIGHT) + pixels.tobytes()


def pairs_in(folder, name, count):
    def records():
        for i in range(count):
            captions = [f"The{name}{i}", f"Number{name}{i}", f"AnotherCap{i}"]
            record = {
                "id": f"{name}/{i}",
                "source": f"{i}.ppm",
                "image": pixmap(7 * i),
                "captions": captions,
            }
            yield VALIDATION if i % 5 == 0 else TRAIN, record

    write_set(folder / name, Kind.PAIRS, records(), shards=2, meta={})
    return str(folder / name)


@pytest.fixture
def boxes(monkeypatch):
    """Crop boxes by the key of their random draws; reading ahead makes them in any order."""
    drawn, draw = {}, images._crop_box

    def noted(draws, *arguments):
        drawn[draws._key] = list(draw(draws, *arguments))
        return tuple(drawn[draws._key])

    monkeypatch.setattr(images, "_crop_box", noted)
    return drawn


def described(parts, names):
    """What is pinned of some batches, as JSON has it."""
    rows = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    pinned = ("masked_patches", "text", "text_masked", "text_targets")
    return {"id": [names[uid] for uid in rows["uid"].tolist()]} | {
        key: rows[key].tolist() for key in pinned if key in rows
    }


def found_in(folder, boxes):
    """Everything that is pinned."""
    counts = {"many": 20, "few": 10}
    places = [pairs_in(folder, name, count) for name, count in counts.items()]
    sets = [open_set(place) for place in places]
    names = {
        zlib.crc32(f"{name}/{i}".encode()): f"{name}/{i}"
        for name, count in counts.items()
        for i in range(count)
    }
    found = {"fingerprints": [each.fingerprint for each in sets]}
    image = {"batch_size": 4, "num_masked_patches": 6, "mask_block": 2}
    sizes = image | {"text_length": 16, "masked_text": 0.5}
    for name, start, stream in (
        ("image", 0, ImageStreamConfig(**image)),
        ("pair", 0, PairStreamConfig(**sizes, whole_words=True)),
        ("pair", 250_000_000_000, PairStreamConfig(**sizes, weights=(0.9, 0.1))),
    ):
        make = MaskedExample(stream, 16, 4, Letters() if name == "pair" else None, True)
        examples = TrainingExamples(name, sets, make, seed=17, weights=stream.weights)
        with contextlib.closing(batches(examples, 4, start)) as rows:
            part = described(list(itertools.islice(rows, 2)), names)
        keys = [framed("training", 17, name, number) for number in range(4 * start, 4 * start + 8)]
        found[f"{name} {start}"] = part | {"crop_box": [boxes[key] for key in keys]}
    record = sets[0].records(TRAIN)[0]
    for number in range(3):
        make.views.fixed(record, number)
    found["views"] = [boxes[framed("view", "many/1", number)] for number in range(3)]
    make = MaskedExample(PairStreamConfig(**sizes), 16, 4, Letters(), False)
    held_out = sets[0].records(VALIDATION)
    examples = EvaluationExamples(held_out, make, 4, seed=17, repeats=2)
    with contextlib.closing(batches(examples, 4)) as rows:
        found["evaluation"] = described(list(rows), names)
    found["wrong partners"] = wrong_partners(
        [{"captions": [f"{i // 3}"]} for i in range(12)], 17
    ).tolist()
    return found


def test_the_first_batches_are_these(tmp_path, boxes):
    found, wanted = found_in(tmp_path, boxes), json.loads(PINNED.read_text())
    assert found.keys() == wanted.keys()
    for part in found:
        assert found[part] == wanted[part], part
