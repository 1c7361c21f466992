"""The list of answers that a network chooses from: made from training data, kept inside the run.

An answer's place in the list is the number of its output. A list in another order would silently
change what each output means, so runs compare the digests of their lists.
"""

import collections
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vlbeit_jax.errors import UsageError
from vlbeit_jax.metrics.vqa import majority, normalise

FILE = "answers.json"
COUNTS, PEOPLE = "answer_counts", "people_counts"  # Entries of a set's description.


@dataclasses.dataclass(frozen=True)
class AnswerList:
    """Normalised answers in the order of the head's outputs."""

    answers: tuple[str, ...]

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits of the hash of all answers in order."""
        return hashlib.sha256(json.dumps(self.answers).encode()).hexdigest()[:12]

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def numbers(self) -> dict[str, int]:
        """The number of each answer."""
        return {answer: number for number, answer in enumerate(self.answers)}

    def save(self, folder: pathlib.Path) -> None:
        """Writes ``answers.json`` into a run's folder."""
        described = {"digest": self.digest, "answers": self.answers}
        text = json.dumps(described, indent=0, ensure_ascii=False)
        (folder / FILE).write_text(text + "\n", encoding="utf-8")


class AnswerCounter:
    """Counts, while a set is prepared, what people answered."""

    def __init__(self) -> None:
        self._majority: dict[str, collections.Counter[str]] = {}
        self._people: dict[str, collections.Counter[int]] = {}

    def add(self, split: str, answers: Sequence[str], times: int = 1) -> None:
        """Counts the answers to one question; times=-1: counts them no longer."""
        self._majority.setdefault(split, collections.Counter())[majority(answers)] += times
        self._people.setdefault(split, collections.Counter())[len(answers)] += times

    def include(self, described: Mapping[str, Mapping[str, Mapping[str, int]]]) -> None:
        """Adds the counts of another part of the set, as its ``description`` states them."""
        for split, counts in described.get(COUNTS, {}).items():
            self._majority.setdefault(split, collections.Counter()).update(counts)
        for split, counts in described.get(PEOPLE, {}).items():
            people = {int(number): count for number, count in counts.items()}
            self._people.setdefault(split, collections.Counter()).update(people)

    def description(self) -> dict[str, Any]:
        """Returns, by split, majority answers and how many people answered, with their counts."""
        return {
            COUNTS: {
                split: {answer: count for answer, count in counts.most_common() if count}
                for split, counts in self._majority.items()
            },
            PEOPLE: {
                split: {str(people): count for people, count in sorted(counts.items()) if count}
                for split, counts in self._people.items()
            },
        }


def build_list(counts: Iterable[Mapping[str, int]], least: int) -> AnswerList:
    """Returns the answers that are the majority's often enough, the most frequent first.

    The usual list of VQA v2 takes those of at least 9 questions of train and validation: 3,129.

    Args:
      counts: majority answers of each training set (``AnswerCounter``).
      least: questions that an answer needs.

    Raises:
      UsageError: fewer than two answers are left.
    """
    total: collections.Counter[str] = collections.Counter()
    for each in counts:
        total.update(each)
    # An answer that is nothing but an article or punctuation is empty after normalisation.
    kept = [answer for answer, count in total.items() if count >= least and answer]
    if len(kept) < 2:
        raise UsageError(
            f"the training sets have {len(total)} different answers, of which {len(kept)} were "
            f"given to at least answers_least={least} questions; two or more are needed. Lower "
            "config.task.answers_least, or name a list by config.task.answers"
        )
    return AnswerList(tuple(sorted(kept, key=lambda answer: (-total[answer], answer))))


def read_list(path: pathlib.Path) -> AnswerList:
    """Reads a list: ``answers.json`` of a run, a JSON list, or one answer a line.

    Raises:
      UsageError: it cannot be read, was changed, or holds an answer twice or one that no prediction
        can equal.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text) if text.lstrip().startswith(("[", "{")) else text.split("\n")
        described = content if isinstance(content, dict) else {}
        answers = described["answers"] if described else content
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(
            f"answer list {path}: cannot be read ({error!r}); give a JSON list, answers.json of a "
            "run, or a file with one answer a line"
        ) from error
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise UsageError(f"answer list {path}: an answer is not a string")
    listed = AnswerList(tuple(answer.strip() for answer in answers if answer.strip()))
    check_list(listed, path)
    if described and described.get("digest") != listed.digest:
        raise UsageError(
            f"answer list {path} was changed: it says {described.get('digest')}, but its answers "
            f"give {listed.digest}. A run's outputs belong to the list that it was trained with; "
            "restore the file"
        )
    return listed


def check_list(listed: AnswerList, path: pathlib.Path) -> None:
    """Raises a ``UsageError`` for too few answers, one twice, or one that nothing can equal."""
    if len(listed) < 2:
        raise UsageError(f"answer list {path}: holds {len(listed)} answers; give two or more")
    counts = collections.Counter(listed.answers)
    if twice := [answer for answer, count in counts.items() if count > 1]:
        raise UsageError(f"answer list {path}: {twice[0]!r} is there twice")
    for answer in listed.answers:
        if answer != normalise(answer):
            raise UsageError(
                f"answer list {path}: {answer!r} must be written {normalise(answer)!r}, because "
                "answers are compared in this form"
            )
