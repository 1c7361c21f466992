"""Sets of one fold of the emoji: complete, apart, and with questions that their pictures answer."""

import numpy as np
import pytest

from tools.emoji.folds import split_of
from tools.emoji.sets import CELLS, by_split, make, questions
from vlbeit_jax.config.finetune import PairedStreamConfig
from vlbeit_jax.data.identity import SPLITS, TEST, TRAIN, text_key
from vlbeit_jax.data.image import decode
from vlbeit_jax.data.source import open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.metrics.vqa import normalise
from vlbeit_jax.tasks.vqa import VQATask
from vlbeit_jax.types import Kind

FOLD = 1


@pytest.fixture(scope="module")
def parts():
    return by_split(open_set("sample:emoji"), FOLD)


def test_every_emoji_is_in_the_split_of_its_group(parts):
    assert sum(map(len, parts.values())) == 1636 and len(parts[TEST]) == 625
    for split, records in parts.items():
        assert all(split_of(record["group"], FOLD) == split for record in records)


def test_names_with_classes_and_pairs(parts, tmp_path):
    made = make(Kind.LABELLED_TEXTS, FOLD, tmp_path / "names")
    assert made["counts"] == {split: len(parts[split]) for split in SPLITS}
    found = open_set(str(tmp_path / "names"), Kind.LABELLED_TEXTS)
    record, own = found.records(TRAIN)[5], parts[TRAIN][5]
    assert record["text"].decode() == own["names"][0] and record["label"].decode() == own["label"]
    made = make(Kind.PAIRS, FOLD, tmp_path / "pairs")
    pairs, captions = open_set(str(tmp_path / "pairs"), Kind.PAIRS), {}
    for split in SPLITS:
        records = pairs.records(split)
        captions[split] = {
            text_key(text.decode()) for i in range(len(records)) for text in records[i]["captions"]
        }
    assert captions[TRAIN].isdisjoint(captions[TEST]) and len(captions[TEST]) > 625
    assert sum(made["counts"].values()) + sum(made["left_out"].values()) == 1636


def test_a_question_is_answered_by_its_cell(parts):
    few = {TEST: parts[TEST][:6]}
    found = [record for _, record in questions(few, FOLD)]
    assert len(found) == 6 * len(CELLS) and len({record["id"] for record in found}) == len(found)
    for number, record in enumerate(found):
        asked, cell = few[TEST][number // 4], number % 4
        assert record["text"] == f"What is at the {CELLS[cell]}?"
        assert record["answers"] == [asked["label"]] and record["group"] == asked["group"]
        picture, wanted = decode(record["image"]), decode(asked["image"])
        assert picture.shape == (128, 128, 3)
        top, left = 64 * (cell // 2), 64 * (cell % 2)
        assert np.array_equal(picture[top : top + 64, left : left + 64], wanted)
    assert found == [record for _, record in questions(few, FOLD)]  # The same every time.


def test_a_set_of_questions_can_be_trained_on(tmp_path, monkeypatch, parts):
    few = {split: records[:12] for split, records in parts.items()}
    monkeypatch.setattr("tools.emoji.sets.by_split", lambda found, fold: few)
    made = make(Kind.QUESTIONS, FOLD, tmp_path / "questions")
    assert made["counts"] == dict.fromkeys(SPLITS, 48)
    task = VQATask(
        question=PairedStreamConfig(sources=(str(tmp_path / "questions"),)), answers_least=1
    )
    labels = [normalise(record["label"]) for record in few[TRAIN]]
    assert set(task.resolve().opened_answers.answers) == set(labels)
    answers, people = made["answer_counts"][TRAIN], made["people_counts"][TRAIN]
    assert answers == {label: 4 * labels.count(label) for label in labels} and people == {"1": 48}


def test_wrong_arguments_are_refused(tmp_path):
    with pytest.raises(UsageError, match="give one of 0, 1, 2"):
        make(Kind.PAIRS, 3, tmp_path / "out")
    with pytest.raises(UsageError, match="labelled_images"):
        make(Kind.TEXTS, 0, tmp_path / "out")
