"""Fine-tuning for the classification of texts."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from vlbeit_jax.config.finetune import LabelledTextsConfig
from vlbeit_jax.config.schema import one_of, section, setting
from vlbeit_jax.data.examples.base import Spec
from vlbeit_jax.data.examples.labelled import LabelledText, labelled_text_specs
from vlbeit_jax.tasks.assets import TEXT_TOKENIZER, open_text_tokenizer, read_classes
from vlbeit_jax.tasks.classification import Classification
from vlbeit_jax.tasks.open_classification import OpenClassification
from vlbeit_jax.tasks.text_problems import text_problems
from vlbeit_jax.types import Kind, Modality


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextClassification(Classification):
    """The task; see ``tasks.base.Task``."""

    kind: ClassVar[str] = "text_classification"
    modality: ClassVar[Modality] = Modality.LANGUAGE
    records: ClassVar[Kind] = Kind.LABELLED_TEXTS

    pool: str = setting(
        "cls", "state before the head: of CLS, or the mean of the others", one_of("mean", "cls")
    )
    text: LabelledTextsConfig = section(LabelledTextsConfig, "texts with a class")
    # It is recognised by its fingerprint, so its folder may move.
    text_tokenizer: str = setting(
        "", "folder made by vlbeit_jax.text_tokenizer, as in run.start_from", may_change=True
    )

    @property
    def schedule(self) -> str:
        """The only stream, in every step."""
        return "text"

    def training_problems(self) -> Iterable[str]:
        """See ``tasks.base.Task``."""
        yield from super().training_problems()
        length = self.text.text_length
        yield from text_problems(self.schedule, length, self.model, self.text_tokenizer)

    def example_specs(self) -> dict[str, Spec]:
        """Returns the shapes and types of a training row."""
        return labelled_text_specs(self.text.text_length)

    def row_tokens(self) -> int:
        """Returns the tokens of a row."""
        return self.text.text_length

    def open(self, folder: Path | None = None) -> OpenClassification:
        """Opens tokenizer and list of classes: those that the settings name, or a run's copies.

        Raises:
          UsageError: one is missing, or the tokenizer does not fit the model.
        """
        task = dataclasses.replace(self, class_names=read_classes(folder)) if folder else self
        place = folder / TEXT_TOKENIZER if folder else self.text_tokenizer
        tokenizer, length = open_text_tokenizer(place, self.model), self.text.text_length

        def make_example(*, augment: bool, labelled: bool = True) -> LabelledText:
            return LabelledText(tokenizer, length, task.class_names if labelled else ())

        return OpenClassification(task, make_example, {}, tokenizer)
