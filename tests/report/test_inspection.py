"""The page about data shows rows of any task as its network sees them, and warns of bad sets."""

import dataclasses

import numpy as np
import pytest

from examples.add_a_task import config as points_config
from tests import tiny
from tests.make_data import build, documents, encoded, picture, train_tokenizer, write_tar
from tests.report.pages import checked
from tests.tasks import labelled_world, paired_world, statement_world
from vlbeit_jax import tasks
from vlbeit_jax.data.pieces import Fate
from vlbeit_jax.data.source import TRAIN, open_set
from vlbeit_jax.report.data_warnings import warnings_of
from vlbeit_jax.report.inspection import data_page
from vlbeit_jax.report.measures import measure, script_of, size_of
from vlbeit_jax.tasks.reading import GREY, SEEN, read_rows, reading_of
from vlbeit_jax.types import Kind

ROWS = 3


def opened(config):
    task = config.task.resolve().open()
    return task, task.training_data(dataclasses.replace(config.run, evaluate_every=0))


def page_of(config):
    return checked(data_page("Data", *opened(config), ROWS, 50))


def batch_of(config, stream):
    task, data = opened(config)
    rows = [data.examples(stream)[index] for index in range(ROWS)]
    return task, {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def test_the_page_of_pretraining(world):
    config = tiny.pretrain_config(world)
    page = page_of(config)
    for stream in ("image", "text", "pair"):
        assert f"Rows of stream {stream}" in page.words
    masks = 2 * ROWS  # Of images and of pairs.
    assert page.words.count("hidden patches6 of 16 (38%)") == masks
    assert page.words.count("its visual tokens") == masks
    # Three pictures for each of these rows, and panels of two sets.
    assert page.pictures == 3 * masks + 4 + 1
    assert "different pictures in the training split48 of 48 records" in page.words


def test_rows_are_what_the_network_sees(world):
    config = tiny.pretrain_config(world)
    task, batch = batch_of(config, "pair")
    rows = read_rows(batch, reading_of(task, "pair"))
    for row, image, masked in zip(rows, batch["image"], batch["masked_patches"], strict=True):
        seen = row.pictures[SEEN].reshape(4, 8, 4, 8, 3).swapaxes(1, 2).reshape(16, -1)
        view = image.reshape(4, 8, 4, 8, 3).swapaxes(1, 2).reshape(16, -1)
        grey = (seen == GREY).all(axis=1)
        assert set(np.flatnonzero(grey)) >= set(masked.tolist())
        others = np.setdiff1d(np.arange(16), masked)
        assert np.array_equal(seen[others], view[others])
    words = [word for row in rows for word in row.words]
    hidden = sum(word.fate is Fate.HIDDEN for word in words)
    assert hidden == (batch["text"] == 4).sum()
    assert sum(word.truth is not None for word in words) == batch["text_weights"].sum()
    records = open_set(str(world.pairs)).records(TRAIN)
    captions = [records[index]["captions"][0].decode() for index in range(len(records))]
    for row in rows:
        # Rows of 16 pieces have no room for the whole caption.
        right = "".join((word.truth or word.seen).in_text for word in row.words).strip()
        assert any(caption.startswith(right) for caption in captions), right


def test_pages_of_other_tasks(world, tmp_path, monkeypatch):
    assert "Rows of stream image" in page_of(tiny.vqkd_config(world)).words
    labelled = labelled_world.prepare(tmp_path / "labelled", "images", Kind.LABELLED_IMAGES)
    page = page_of(labelled_world.image_config(labelled, erase=1.0))
    assert any(f"class{name}" in page.words for name in labelled_world.NAMES)
    assert SEEN in page.words
    tokenizer = paired_world.tokenizer_in(tmp_path)
    statements = statement_world.prepare(tmp_path / "statements")
    task = statement_world.reasoning_task(statements, tokenizer)
    page = page_of(paired_world.config(task, 1))
    assert page.words.count("second image") == ROWS and (
        "statementtrue" in page.words or "statementfalse" in page.words
    )
    questions = paired_world.prepare(tmp_path / "questions", Kind.QUESTIONS)
    page = page_of(paired_world.config(paired_world.vqa_task(questions, tokenizer), 1))
    assert "what is above?" in page.words and "answers" in page.words
    # A task that the package does not know, without prepared sets.
    monkeypatch.setitem(tasks.TASKS, "fit_line", "examples.add_a_task:FitLine")
    assert "Rows of stream points" in page_of(points_config()).words


def found_in(place, tokenizer, side=16, length=32, batch=4):
    found = open_set(str(place))
    measures = measure(found, tokenizer, 50)
    return {each.short for each in warnings_of(found, measures, side, length, batch)}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "texts.txt").write_text("\n".join(documents(40)))
    build(folder / "texts", Kind.TEXTS, [folder / "texts.txt"])
    return train_tokenizer(folder, "tokenizer", [folder / "texts"])


def test_warnings_are_of_bad_sets_only(tmp_path, tokenizer):
    def pairs(name, caption, side=24, share=0.5, count=24):
        members = []
        for i in range(count):
            members += [(f"{i:03d}.png", encoded(picture(i, side, side)))]
            members += [(f"{i:03d}.txt", caption(i).encode())]
        tar = write_tar(tmp_path / f"{name}.tar", members)
        build(tmp_path / name, Kind.PAIRS, [tar], validation_share=share, max_dropped=1.0)
        return tmp_path / name

    good = pairs("good", lambda i: f"a dog sees cat {i}")
    assert not found_in(good, tokenizer)
    assert "small pictures are enlarged" in found_in(good, tokenizer, side=25)
    assert "texts are cut" in found_in(good, tokenizer, length=6)
    assert "fewer records than a batch" in found_in(good, tokenizer, batch=1000)
    same = found_in(pairs("same", lambda i: "a cat", share=0.0), tokenizer)
    assert {"all texts are equal", "repeated texts", "no validation split"} <= same


def test_sizes_come_from_headers_and_scripts_from_unicode():
    assert size_of(encoded(picture(0, 20, 24))) == (24, 20)
    assert size_of(encoded(picture(0, 20, 24), "JPEG", exif=b"Exif\0\0" + turned())) == (20, 24)
    assert [script_of(letter) for letter in "aÖпヤ東あ"] == [
        "Latin",
        "Latin",
        "Cyrillic",
        "Katakana",
        "Cjk",
        "Hiragana",
    ]


def turned():
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes().removeprefix(b"Exif\0\0")


def test_the_command_writes_one_file(world, tmp_path):
    config = tiny.config_file(tiny.vqkd_config(world), tmp_path)
    done = tiny.command(
        "vlbeit_jax.inspect_data", f"--config={config}", f"--out={tmp_path / 'd.html'}", "--rows=2"
    )
    assert done.returncode == 0, done.stderr
    page = checked((tmp_path / "d.html").read_text())
    assert "Data of config_of_test.py" in page.words
    done = tiny.command(
        "vlbeit_jax.inspect_data", f"--config={config}", f"--out={tmp_path / 'no' / 'd.html'}"
    )
    assert done.returncode == 2 and "existing, writable folder" in done.stderr


def test_what_others_wrote_stays_text(tmp_path):
    """Names of classes, ids and file names with markup in them; ``checked`` finds a script."""
    hostile = "<script>alert(1)</script>"
    lines = labelled_world.rows(tmp_path)
    for line in lines:
        line |= {"label": f"{hostile}{line['label']}", "id": f"{hostile}{line['id']}"}
    place = labelled_world.write(tmp_path / "<img src=x onerror=alert(1)>.jsonl", lines)
    out = tmp_path / "<b>labelled"
    build(out, Kind.LABELLED_IMAGES, [place], source_format="jsonl")
    page = data_page("Data", *opened(labelled_world.image_config(out)), ROWS, 50)
    assert "&lt;script&gt;alert(1)" in page and "<img src=x" not in page and "<b>" not in page
    checked(page)
