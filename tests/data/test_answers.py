"""Answer lists: made from counts, kept with a digest, and refused where they do not match."""

import json

import pytest

from vlbeit_jax.data.answers import (
    AnswerCounter,
    AnswerList,
    build_list,
    read_list,
)
from vlbeit_jax.errors import UsageError

LIST = AnswerList(("yes", "no", "2 dogs", "café"))


def test_counting_answers_of_a_set():
    counter = AnswerCounter()
    for split, answers in (
        ("train", ["Yes", "yes", "no"]),
        ("train", ["no"]),
        ("train", ["yes."]),
        ("test", ["A dog"] * 10),
    ):
        counter.add(split, answers)
    found = json.loads(json.dumps(counter.description()))
    assert found == {
        "answer_counts": {"train": {"yes": 2, "no": 1}, "test": {"dog": 1}},
        "people_counts": {"train": {"1": 2, "3": 1}, "test": {"10": 1}},
    }


def test_the_list_holds_frequent_answers_the_most_frequent_first():
    counts = [{"no": 5, "yes": 3, "cat": 2, "": 9}, {"yes": 4, "dog": 5, "cat": 1}]
    assert build_list(counts, 3).answers == ("yes", "dog", "no", "cat")
    assert build_list(counts, 5).answers == ("yes", "dog", "no")
    said = "5 different answers, of which 1 were given to at least answers_least=6"
    with pytest.raises(UsageError, match=said):
        build_list(counts, 6)


def test_a_list_comes_back_from_a_run_and_from_plain_files(tmp_path):
    LIST.save(tmp_path)
    assert read_list(tmp_path / "answers.json") == LIST
    lines, listed = tmp_path / "answers.txt", tmp_path / "plain.json"
    lines.write_text("yes\nno\n\n2 dogs\ncafé\n", encoding="utf-8")
    listed.write_text(json.dumps(LIST.answers))
    assert read_list(lines) == read_list(listed) == LIST
    assert read_list(lines).digest == LIST.digest != AnswerList(LIST.answers[::-1]).digest
    assert LIST.numbers["2 dogs"] == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("yes\nno\nyes\n", "'yes' is there twice"),
        ("yes\nTwo dogs\n", "'Two dogs' must be written '2 dogs'"),
        ("yes\n", "holds 1 answers"),
        ('["yes", 2]', "not a string"),
        ('["yes", ', "cannot be read"),
        ('{"digest": "0"}', "cannot be read"),
    ],
)
def test_lists_that_no_prediction_can_match_are_refused(tmp_path, text, said):
    path = tmp_path / "answers.txt"
    path.write_text(text)
    with pytest.raises(UsageError, match=said) as caught:
        read_list(path)
    assert str(path) in str(caught.value)
    with pytest.raises(UsageError, match="cannot be read"):
        read_list(tmp_path / "missing.txt")


def test_a_changed_list_of_a_run_is_refused(tmp_path):
    LIST.save(tmp_path)
    path = tmp_path / "answers.json"
    path.write_text(path.read_text().replace('"yes"', '"maybe"'))
    with pytest.raises(UsageError, match="was changed: it says"):
        read_list(path)
