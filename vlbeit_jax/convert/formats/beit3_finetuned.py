"""Imports BEiT-3's networks for questions, statements, retrieval and captions as fine-tuned runs.

All take BEiT-3's own word pieces (``beit3_words``), and pixels in [-1, 1]. ``beit3_heads`` has the
tables of their heads.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from vlbeit_jax.config.common import RunConfig
from vlbeit_jax.config.finetune import CaptionStreamConfig, PairedStreamConfig
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.convert.formats.base import Import
from vlbeit_jax.convert.formats.beit3 import config_of
from vlbeit_jax.convert.formats.beit3_heads import (
    captioning_table,
    reasoning_table,
    retrieval_table,
    vqa_table,
)
from vlbeit_jax.convert.formats.beit3_words import read_words
from vlbeit_jax.convert.import_options import ImportOptions, require_shapes
from vlbeit_jax.convert.importing import import_network
from vlbeit_jax.convert.read_tensors import TensorFile
from vlbeit_jax.convert.rules import Report, Shape, Table
from vlbeit_jax.data.answers import AnswerList, check_list, read_list
from vlbeit_jax.data.splits import NOTHING_SEEN, write_seen
from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import place
from vlbeit_jax.runtime.run_folder import write_config
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.captioning import Captioning
from vlbeit_jax.tasks.retrieval import Retrieval
from vlbeit_jax.tasks.visual_reasoning import VisualReasoning
from vlbeit_jax.tasks.vqa import VQATask
from vlbeit_jax.training.saved_run import IMPORTED_STEP
from vlbeit_jax.training.state import declarations
from vlbeit_jax.types import Special

LONGEST = 64  # Word pieces of a question, a statement or a text to be found, in BEiT-3's recipes.
CAPTION = 32
MakeTask = Callable[[ModelConfig, list[Shape], ImportOptions], Any]


@dataclasses.dataclass(frozen=True)
class Form:
    """One of BEiT-3's networks.

    Attributes:
      name: of what it does, for messages.
      ranks: number of axes of the tensors of its head by which it is recognised.
      table: of its names.
      task: from the model, the shapes of these tensors and the flags.
      drops: what is not read.
      flags: besides those that all have.
    """

    name: str
    ranks: Mapping[str, int]
    table: Callable[[ModelConfig], Table]
    task: MakeTask
    drops: str
    flags: tuple[str, ...] = ()

    def read(
        self, file: TensorFile, path: pathlib.Path, options: ImportOptions, out: pathlib.Path
    ) -> Report:
        """See ``formats.base.Import``."""
        shapes = require_shapes(f"BEiT-3 network for {self.name}", file.shapes, self.ranks)
        if options.text_tokenizer is None:
            raise UsageError(
                "--text_tokenizer missing: give BEiT-3's SentencePiece file, beit3.spm, whose word "
                "pieces the network reads"
            )
        words = read_words(place(options.text_tokenizer, "--text_tokenizer"))
        file = words.reorder(file)
        model = dataclasses.replace(config_of(file, options), pad=int(Special.PAD))
        task = self.task(model, shapes, options)

        def describe(folder: pathlib.Path) -> None:
            write_config(folder, Config(task=task, run=RunConfig(steps=IMPORTED_STEP)))
            words.save(folder)
            if isinstance(task, VQATask) and task.opened_answers:
                task.opened_answers.save(folder)
            # The file does not say what the weights were trained on, so no set counts as seen.
            write_seen(folder, NOTHING_SEEN)

        params = declarations(task.init).shapes
        return import_network(path, file, self.table(model), params, describe, out)

    @property
    def format(self) -> Import:
        """What the command knows of it."""
        return Import(
            exact=f"{self.name}: every output, for texts that BEiT-3's tokenizer cuts",
            gives="a fine-tuned run: to evaluate, to predict with, to export, to start from",
            drops=self.drops,
            read=self.read,
            flags=("heads", "text_tokenizer", *self.flags),
        )


def _paired(model: ModelConfig) -> PairedStreamConfig:
    return PairedStreamConfig(text_length=min(LONGEST, model.text_positions))


def _vqa(model: ModelConfig, shapes: list[Shape], options: ImportOptions) -> VQATask:
    ((count,),) = shapes
    answers = _answers(options.answers, count)
    return VQATask(model=model, question=_paired(model), opened_answers=answers)


def _answers(given: str | None, count: int) -> AnswerList:
    """Reads BEiT-3's ``answer2label.txt``, or another list.

    Raises:
      UsageError: there is none, or it has another number of answers than the head.
    """
    if given is None:
        raise UsageError(
            f"--answers missing: the file's head has {count} outputs, and does not say which "
            "answers they are; give BEiT-3's answer2label.txt, or one answer a line"
        )
    path = place(given, "--answers")
    answers = _labelled(path) or read_list(path)
    if len(answers) != count:
        raise UsageError(
            f"--answers={given} holds {len(answers)} answers, but the file's head has {count} "
            "outputs"
        )
    return answers


def _labelled(path: pathlib.Path) -> AnswerList | None:
    """Returns the answers of lines ``{"answer": ..., "label": number}``; None: it has others."""
    try:
        lines = [json.loads(line) for line in path.read_text("utf-8-sig").splitlines() if line]
        by_label = {each["label"]: each["answer"] for each in lines}
    except (OSError, ValueError, KeyError, TypeError):
        return None  # ``read_list`` reads the other forms, and says what is wrong.
    if sorted(by_label) != list(range(len(lines))):
        raise UsageError(f"--answers={path}: the labels are not the numbers from 0, each once")
    listed = AnswerList(tuple(by_label[number] for number in range(len(lines))))
    check_list(listed, path)
    return listed


def _reasoning(model: ModelConfig, shapes: list[Shape], options: ImportOptions) -> VisualReasoning:
    return VisualReasoning(model=model, statement=_paired(model))


def _retrieval(model: ModelConfig, shapes: list[Shape], options: ImportOptions) -> Retrieval:
    features, _ = shapes[0]
    return Retrieval(model=model, pair=_paired(model), features=features, max_scale=0.0)


def _captioning(model: ModelConfig, shapes: list[Shape], options: ImportOptions) -> Captioning:
    length = min(CAPTION, model.text_positions)
    return Captioning(model=model, pair=CaptionStreamConfig(text_length=length))


NOTHING = "nothing"
IMPORTS: dict[str, Import] = {
    "beit3-vqa": Form(
        "questions",
        {"head.3.bias": 1},
        vqa_table,
        _vqa,
        NOTHING,
        ("answers",),
    ).format,
    "beit3-nlvr2": Form(
        "statements", {"head.dense2.bias": 1}, reasoning_table, _reasoning, NOTHING
    ).format,
    "beit3-retrieval": Form(
        "retrieval",
        {"vision_head.weight": 2, "language_head.weight": 2, "logit_scale": 0},
        retrieval_table,
        _retrieval,
        NOTHING,
    ).format,
    "beit3-captioning": Form(
        "captions", {"mlm_head.weight": 2}, captioning_table, _captioning, NOTHING
    ).format,
}
