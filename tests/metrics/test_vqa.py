"""The VQA score: the official evaluator's golden values, and a slow statement of its rule."""

import random

import numpy as np
import pytest

from vlbeit_jax.metrics.vqa import (
    Rule,
    answer_type,
    choose_rule,
    majority,
    normalise,
    soft_targets,
    summarise,
    vqa_score,
)

# What the official evaluator (GT-Vision-Lab/VQA, a013f00) makes of these strings.
GOLDEN = {
    "A dog": "dog",
    "the  Dog": "dog",
    "two": "2",
    "Two dogs": "2 dogs",
    "none": "0",
    "zero": "0",
    "ten": "10",
    "eleven": "eleven",
    "3.5": "3.5",
    "3.": "3",
    "12.5.": "12.5",
    "$.50": "$.50",
    "U.S.A.": "usa",
    "x.y": "xy",
    "1,000": "1000",
    "1,000 dollars, approx": "1000 dollars approx",
    "red,white": "red white",
    "red, white": "red white",
    "red/white": "red white",
    "red / white": "red white",
    "t-shirt": "t shirt",
    "t - shirt": "t shirt",
    "hot-dog, please": "hot dog please",
    "no_parking": "no parking",
    "(left)": "left",
    "10 - 20": "10 20",
    "2-3": "2 3",
    "one,two": "1 2",
    "mr. smith": "mr smith",
    "dont": "don't",
    "Im": "im",
    "its": "its",
    "it's": "it's",
    "whos": "who's",
    "oclock": "o'clock",
    "somebody'd": "somebodyd",
    "'yes'": "'yes'",
    "black&white": "black&white",
    "50%": "50%",
    "5:30": "5:30",
    "a": "",
    "the": "",
    "an apple a day": "apple day",
    " a\tred\ncar ": "red car",
    "itd've": "it'd've",
    "lets": "lets",
    "y'alld've": "y'all'd've",
    "." * 40: "." * 8,  # At most 32 periods are removed.
}


@pytest.mark.parametrize(("answer", "normal"), GOLDEN.items())
def test_answers_are_normalised_as_the_official_evaluator_does(answer, normal):
    assert normalise(answer) == normal


@pytest.mark.parametrize(
    ("people", "scores"),
    [
        (10, [0, 0.3, 0.6, 0.9, 1]),
        (5, [0, 4 / 15, 8 / 15, 0.8, 1]),
        (3, [0, 2 / 9, 4 / 9, 2 / 3]),
        (1, [0, 0]),
    ],
)
def test_the_score_by_the_number_of_people_who_agree(people, scores):
    for agree, score in enumerate(scores):
        answers = ["cat"] * agree + [f"dog {i}" for i in range(people - agree)]
        assert vqa_score("cat", answers) == pytest.approx(score, abs=1e-12), agree


def slow_score(predicted, answers):
    """One person after the other is left out, told apart by number."""
    predicted, people = predicted.strip(), list(enumerate(each.strip() for each in answers))
    if len({answer for _, answer in people}) > 1:
        predicted = normalise(predicted)
        people = [(number, normalise(answer)) for number, answer in people]
    scores = []
    for person in people:
        others = [each for each in people if each != person]
        scores.append(min(1, sum(answer == predicted for _, answer in others) / 3))
    return sum(scores) / len(scores)


def test_the_score_is_that_of_a_slow_statement():
    rng, words = random.Random(0), ["a dog", "Dog", "two", "2", "t-shirt", "dont", "cat", " cat"]
    for _ in range(500):
        answers = rng.choices(words[: rng.randint(1, 8)], k=rng.choice([1, 3, 5, 10]))
        predicted = rng.choice(words)
        assert vqa_score(predicted, answers) == pytest.approx(slow_score(predicted, answers))


def test_capitals_count_only_if_all_answers_are_literally_equal():
    assert vqa_score("yes", ["Yes"] * 10) == 0
    assert vqa_score("Yes", ["Yes"] * 10) == 1
    assert vqa_score("yes", ["Yes"] * 9 + ["no"]) == 1
    assert vqa_score("YES", ["Yes"] * 9 + ["no"]) == 1


def test_the_exact_rule_takes_any_given_answer():
    answers = ["a dog", "puppy"]
    found = [vqa_score(each, answers, Rule.EXACT) for each in ("Dog", "the puppy", "cat")]
    assert found == [1, 1, 0]
    assert vqa_score("Yes", ["yes"], Rule.EXACT) == 1 and vqa_score("yes", ["yes"]) == 0


def test_a_question_without_answers_is_an_error():
    for rule in Rule:
        with pytest.raises(ValueError, match="without answers"):
            vqa_score("yes", [], rule)


def test_a_set_has_one_rule():
    assert choose_rule([10, 10]) is Rule.OFFICIAL
    assert choose_rule([10, 9]) is Rule.EXACT and choose_rule([1]) is Rule.EXACT


def test_soft_targets_are_the_scores_of_the_answers():
    answers = ["Two"] * 2 + ["2"] * 2 + ["three"] * 3 + ["a dog"] * 2 + ["none"]
    assert soft_targets(answers) == pytest.approx({"2": 1, "3": 0.9, "dog": 0.6, "0": 0.3})
    for answer, target in soft_targets(answers).items():
        assert vqa_score(answer, answers) == pytest.approx(target)
    assert soft_targets(["A dog", "puppy"], Rule.EXACT) == {"dog": 1, "puppy": 1}


def test_the_majority_answer_is_the_first_of_the_most_frequent():
    assert majority(["cat", "Two", "2", "dog", "the cat"]) == "cat"
    assert majority(["cat", "Two", "2", "dog"]) == "2"


def test_types_of_answers():
    found = [answer_type(each) for each in ("yes", "no", "10", "3.5", "2 dogs", "5:30", "")]
    assert found == ["yes/no"] * 2 + ["number"] * 2 + ["other"] * 3


def test_the_summary_in_numbers():
    types = ["yes/no", "number", "yes/no", "other"]
    found = summarise(np.array([1, 0.3, 0, 0.6]), types)
    assert found == pytest.approx(
        {
            "accuracy": 0.475,
            "accuracy_number": 0.3,
            "accuracy_other": 0.6,
            "accuracy_yes_no": 0.5,
            "count": 4,
        }
    )
    assert summarise(np.array([1.0, 0.0])) == {"accuracy": 0.5, "count": 2}
    with pytest.raises(ValueError, match="no questions"):
        summarise(np.array([]))
