"""The VQA score: an answer counts for as much as the people agree with it who answered too.

The rules are those of VQA v2's official evaluator (Antol et al., arXiv 1505.00468; Goyal et al.,
arXiv 1612.00837). Tests hold golden values that it gave. The words of ``CONTRACTIONS`` and
``NUMBERS`` are facts of that evaluator (Copyright 2014 Aishwarya Agrawal, 2-clause BSD licence).
"""

import enum
import functools
import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from vlbeit_jax.shapes import Float

OFFICIAL_ANSWERS = 10  # People who answered each question of VQA v2.
AGREEING = 3  # People who must give an answer too before it counts in full.

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'  # Not among them: : % & ' $ # * and the period.
DIGIT_COMMA = re.compile("[0-9],[0-9]")
# The official expression also has a part that should spare a period after a digit, but it is
# malformed and spares none. A flag that is passed in the place of a count limits it to 32 periods.
PERIOD, PERIODS = re.compile(r"\.(?![0-9])"), 32
ARTICLES = frozenset({"a", "an", "the"})
NUMBERS = {"none": "0"} | {
    word: str(number)
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten".split()  # Eleven stays a word.
    )
}
CONTRACTIONS = """
    'ow's'at 'twas ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't
    hadn't've hasn't haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am
    might've mightn't mightn't've must've mustn't needn't not've o'clock oughtn't shan't she'd've
    should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've
    someone'll someone's something'd something'd've something'll that's there'd there'd've there're
    there's they'd they'd've they'll they're they've wasn't we'd've we've weren't what'll what're
    what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
    why's won't would've wouldn't wouldn't've y'all y'all'd've y'all'll you'd you'd've you'll
    you're you've
""".split()


class Rule(enum.StrEnum):
    """How an answer is judged by the answers that people gave.

    OFFICIAL: VQA v2's score, for questions that ten people answered. With a single answer it is 0
    for everything, because it leaves out one person at a time. EXACT: 1 if any person gave this
    answer, else 0; for data of one's own.
    """

    OFFICIAL = enum.auto()
    EXACT = enum.auto()


def choose_rule(counts: Iterable[int]) -> Rule:
    """Returns the rule for a data set: the official one if ten people answered every question.

    A set has one rule, because the mean of scores by different rules says nothing.

    Args:
      counts: answers of each question.
    """
    return Rule.OFFICIAL if all(count == OFFICIAL_ANSWERS for count in counts) else Rule.EXACT


def tidy(answer: str) -> str:
    """Returns an answer with blanks instead of tabs and line breaks, and none at its ends."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


def normalise(answer: str) -> str:
    """Returns an answer in the form in which answers are compared.

    Punctuation goes, or becomes a blank; so do articles. Letters become lower case, number words up
    to ten become digits, and contractions get their apostrophe.
    """
    return _words(_without_punctuation(tidy(answer)))


def _without_punctuation(text: str) -> str:
    numbers = DIGIT_COMMA.search(text) is not None
    result = text
    for mark in PUNCTUATION:
        apart = f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if apart or numbers else " ")
    return PERIOD.sub("", result, count=PERIODS)


def _words(text: str) -> str:
    words = (NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(_misspelt().get(word, word) for word in words if word not in ARTICLES)


@functools.cache
def _misspelt() -> dict[str, str]:
    """Returns contractions by what is left of them without one of their apostrophes."""
    misspelt = {
        word[:place] + word[place + 1 :]: word
        for word in CONTRACTIONS
        for place, letter in enumerate(word)
        if letter == "'"
    }
    return misspelt | {"somebody'd": "somebodyd"}  # The only entry that removes an apostrophe.


def vqa_score(predicted: str, answers: Sequence[str], rule: Rule = Rule.OFFICIAL) -> float:
    """Returns the score of one answer, between 0 and 1.

    By the official rule, each person in turn is left out, and an answer counts a third for each of
    the others who gave it, at most 1; the score is the mean over the persons. If all of them gave
    literally the same answer, nothing is normalised before the comparison, so that "Yes" is not
    "yes" there.

    Args:
      predicted: the answer that is judged.
      answers: what people answered; one entry per person.
      rule: see ``Rule``.

    Raises:
      ValueError: there are no answers.
    """
    if not answers:
        raise ValueError("a question without answers has no score")
    predicted, answers = tidy(predicted), [tidy(answer) for answer in answers]
    if rule is Rule.EXACT:
        return float(normalise(predicted) in {normalise(answer) for answer in answers})
    if len(set(answers)) > 1:
        predicted, answers = normalise(predicted), [normalise(answer) for answer in answers]
    agree = answers.count(predicted)
    # Whoever gave this answer is not among the others when left out.
    left_out = agree * min(1.0, (agree - 1) / AGREEING)
    rest = (len(answers) - agree) * min(1.0, agree / AGREEING)
    return (left_out + rest) / len(answers)


def soft_targets(answers: Sequence[str], rule: Rule = Rule.OFFICIAL) -> dict[str, float]:
    """Returns the target of every normalised answer of one question, for training.

    By the official rule 0.3, 0.6, 0.9 and 1 for answers that 1, 2, 3 and more people gave: with ten
    people, that is the score of the answer (BEiT-3, VLMo). By the exact rule 1 for each.

    The official recipes count answers as they are written. Here answers are normalised first, by
    the function that evaluation uses, so that "Two" and "2" are one answer in both.

    Args:
      answers: what people answered.
      rule: see ``Rule``.
    """
    counts = Counter(normalise(answer) for answer in answers)
    if rule is Rule.EXACT:
        return dict.fromkeys(counts, 1.0)
    return {answer: min(1.0, 0.3 * count) for answer, count in counts.items()}


def majority(answers: Sequence[str]) -> str:
    """Returns the normalised answer that most people gave; of several, the first."""
    return Counter(normalise(answer) for answer in answers).most_common(1)[0][0]


def answer_type(answer: str) -> str:
    """Returns "yes/no", "number" or "other", as VQA v2 divides its figures.

    Args:
      answer: the majority answer, normalised.
    """
    if answer in ("yes", "no"):
        return "yes/no"
    return "number" if re.fullmatch(r"[0-9]+(\.[0-9]+)?", answer) else "other"


def summarise(scores: Float[np.ndarray, " A"], types: Sequence[str] = ()) -> dict[str, float | int]:
    """Returns the mean score over questions, between 0 and 1, also by type of answer.

    The official evaluator prints percent, rounded to two digits.

    Args:
      scores: of each question.
      types: of each question's answer (``answer_type``); empty: no figures by type.

    Raises:
      ValueError: there are no questions.
    """
    if not len(scores):
        raise ValueError("no questions, so there is no mean score")
    scores = np.asarray(scores, np.float64)
    figures: dict[str, float | int] = {"accuracy": float(scores.mean()), "count": len(scores)}
    for name in sorted(set(types)):
        chosen = scores[np.array([each == name for each in types])]
        figures[f"accuracy_{name.replace('/', '_')}"] = float(chosen.mean())
    return figures
