"""Question answering: an image and a question to one of a fixed list of answers (BEiT-3)."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

import jax

from vlbeit_jax.config.finetune import PairedStreamConfig
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.config.schema import POSITIVE, one_of, section, setting
from vlbeit_jax.data.answers import COUNTS, FILE, AnswerList, build_list, read_list
from vlbeit_jax.data.examples.paired import question_specs
from vlbeit_jax.data.source import TRAIN, open_sets_once
from vlbeit_jax.metrics.vqa import Rule
from vlbeit_jax.models.vqa import VQA
from vlbeit_jax.objectives.answering import Answering
from vlbeit_jax.places import place
from vlbeit_jax.shapes import Tree
from vlbeit_jax.tasks import base
from vlbeit_jax.tasks.assets import TEXT_TOKENIZER
from vlbeit_jax.tasks.backbone_start import backbone_start
from vlbeit_jax.tasks.open_vqa import QUESTION, OpenVQA
from vlbeit_jax.tasks.text_problems import padding_problems, text_problems
from vlbeit_jax.training.warm_start import WarmStart
from vlbeit_jax.types import Kind, Modality

AUTO = "auto"


@dataclasses.dataclass(frozen=True, kw_only=True)
class VQATask:
    """The task; see ``tasks.base.Task``.

    Attributes:
      opened_answers: the list, as ``resolve`` makes or reads it; None: a list of ``answer_count``.
    """

    kind: ClassVar[str] = "vqa"
    schedule: ClassVar[str] = QUESTION

    model: ModelConfig = section(
        lambda: ModelConfig(image_size=480, text_positions=64), "Multiway Transformer"
    )
    question: PairedStreamConfig = section(
        lambda: PairedStreamConfig(batch_size=128), "images with a question; sets of questions"
    )
    text_tokenizer: str = setting("", "folder made by vlbeit_jax.text_tokenizer", may_change=True)
    # The list is recognised by its digest.
    answers: str = setting(
        "",
        "file with the list of answers: one a line, or answers.json of a run; empty: those of the "
        "training sets",
        may_change=True,
    )
    answers_least: int = setting(
        9, "training questions that an answer needs to be in the list", POSITIVE
    )
    answer_count: int = setting(
        3129, "length of the list, for compile and benchmark; a run makes or reads it", POSITIVE
    )
    rule: str = setting(
        AUTO,
        "score of an answer: VQA v2's (official), or 1 for any given one (exact); auto: official "
        "if ten people answered each question",
        one_of(AUTO, *Rule),
    )
    opened_answers: AnswerList | None = None

    @property
    def network(self) -> VQA:
        """The network."""
        count = len(self.opened_answers) if self.opened_answers else self.answer_count
        return VQA(self.model, count)

    def problems(self) -> Iterable[str]:
        """See ``tasks.base.Task``."""
        return ()

    def training_problems(self) -> Iterable[str]:
        """See ``tasks.base.Task``."""
        length = self.question.text_length
        yield from self.question.training_problems(QUESTION)
        yield from padding_problems(self.model)
        yield from text_problems(QUESTION, length, self.model, self.text_tokenizer)

    def resolve(self) -> "VQATask":
        """Returns the task with its list of answers.

        Raises:
          UsageError: the list or a set cannot be read, or the sets have too few answers.
        """
        if self.answers:
            listed = read_list(place(self.answers))
        else:
            sets = open_sets_once(self.question.sources, Kind.QUESTIONS)
            counts = [each.meta[COUNTS].get(TRAIN, {}) for each in sets]
            listed = build_list(counts, self.answers_least)
        return dataclasses.replace(self, opened_answers=listed)

    def init(self, key: jax.Array) -> Tree:
        """Returns parameters, boxed with their ``ParamInfo``."""
        return self.network.init(key, method="init_all")["params"]

    def streams(self) -> Mapping[str, base.Stream]:
        """Returns the stream of questions."""
        stream = base.Stream(
            objective=Answering(self.network),
            example=question_specs(self.question, self.model.image_size),
            batch_size=self.question.batch_size,
            tokens=self.model.patches + 1 + self.question.text_length,
        )
        return {QUESTION: stream}

    def frozen(self) -> Tree:
        """Returns nothing: all parameters are trained."""
        return {}

    def warm_start(self) -> WarmStart:
        """Returns rules for a start of any task; pooler and head are always fresh."""
        return backbone_start(self.model, tuple(Modality), fresh=("pooler/*", "head/*"))

    def open(self, folder: Path | None = None) -> OpenVQA:
        """Opens tokenizer and answers: those that the settings name, or a run's copies.

        Raises:
          UsageError: one is missing, was changed, or does not fit the model.
        """
        if folder is None:
            return OpenVQA(self, self.text_tokenizer)
        task = dataclasses.replace(self, opened_answers=read_list(folder / FILE))
        return OpenVQA(task, folder / TEXT_TOKENIZER)
