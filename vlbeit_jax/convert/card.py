"""The model card of an export: README.md, with metadata that the Hugging Face Hub reads."""

import dataclasses
import json
import pathlib
from typing import Any

from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.convert.card_data import data_section, imported_from
from vlbeit_jax.convert.card_figures import figures_section
from vlbeit_jax.convert.finetuned import FineTunedModel
from vlbeit_jax.convert.source import Run
from vlbeit_jax.tasks.assets import TEXT_TOKENIZER, VISUAL_TOKENIZER
from vlbeit_jax.training.saved_run import CONFIG_FILE
from vlbeit_jax.version import __version__

CARD_FILE = "README.md"
TAGS = ("vl-beit", "arxiv:2206.01127", "masked-image-modeling", "vision-language")


@dataclasses.dataclass(frozen=True)
class Subject:
    """What a card is about.

    Attributes:
      folder: of the run.
      config: of the run.
      step: of the weights.
      weights: "raw", or "ema" for averaged ones.
      task: of the Hub's list (``pipeline_tag``).
      use: what the model is made for.
      limits: what it is not made for.
    """

    folder: pathlib.Path
    config: Any
    step: int
    weights: str
    task: str
    use: str
    limits: tuple[str, ...]

    @property
    def model(self) -> ModelConfig:
        """The network's part of the configuration."""
        return self.config.task.model


def of_run(run: Run) -> Subject:
    """Describes a pretraining run."""
    return Subject(
        run.folder,
        run.config,
        run.step,
        "raw",
        "feature-extraction",
        "Features of images, texts and pairs, as a start for fine-tuning, and prediction of masked "
        "patches and words. It answers nothing by itself.",
        (
            "Images and texts are not placed in one space, so the vector of an image is not to be "
            "compared with that of a text. A model fine-tuned for retrieval can do that.",
            "No loss looks at the state of CLS. The mean of the states is often the better vector.",
        ),
    )


def of_finetuned(source: FineTunedModel) -> Subject:
    """Describes a fine-tuned run."""
    run, network = source.run, source.network
    return Subject(
        run.folder,
        run.config,
        run.step,
        run.weights,
        source.head.task(network),
        source.head.use,
        ("It knows nothing but its task, and was trained for the kind of data below alone.",),
    )


def write_card(subject: Subject, code: str, out: pathlib.Path) -> None:
    """Writes ``README.md`` into an export.

    Args:
      subject: what it is about.
      code: Python that loads the export and uses it.
      out: the export, with ``evaluation.json`` if there is one.
    """
    sections = {
        "Use": ["```python", code.strip(), "```", "", f"**Made for**: {subject.use}"],
        "Data": data_section(subject.folder, subject.config, subject.step),
        "Figures": figures_section(out, subject.folder, subject.weights),
        "Limits": [f"- {each}" for each in (*subject.limits, *_limits(subject))],
        "How it was trained": _training(subject),
        "Licence": [
            "Whoever trained the model has to choose the licence of its weights, and to write it "
            "here and into `license` at the top. The licences of the data are listed above. The "
            "code is under the Apache License 2.0."
        ],
    }
    parts = [_metadata(subject), f"# {_title(subject)}", _summary(subject)]
    for title, lines in sections.items():
        parts.append(f"## {title}\n\n" + "\n".join(lines))
    (out / CARD_FILE).write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _metadata(subject: Subject) -> str:
    tags = "\n".join(f"- {json.dumps(tag)}" for tag in (*TAGS, subject.config.task.kind))
    return (
        "---\n"
        "library_name: vlbeit_jax\n"
        "license: unknown\n"
        f"pipeline_tag: {subject.task}\n"
        f"tags:\n{tags}\n"
        "---"
    )


def _title(subject: Subject) -> str:
    kind = subject.config.task.kind.replace("_", " ").replace("pretrain", "pretrained")
    return f"VL-BEiT, {subject.model.depth} blocks of width {subject.model.width}: {kind}"


def _summary(subject: Subject) -> str:
    model = subject.model
    return (
        "One Transformer for images and texts ([VL-BEiT](https://arxiv.org/abs/2206.01127)), with "
        f"{model.heads} attention heads, images of {model.image_size} x {model.image_size} pixels "
        f"in patches of {model.patch_size}, and texts of up to {model.text_positions} of "
        f"{model.vocabulary:,} word pieces. Exported at step {subject.step:,} by vlbeit_jax "
        f"{__version__}. This card was generated; whoever publishes it should complete it."
    )


def _limits(subject: Subject) -> list[str]:
    model = subject.model
    return [
        "It was measured on nothing but what Figures lists. Other images and texts may give worse "
        "results.",
        "It repeats the mistakes, gaps and stereotypes of its data. Nobody has looked for them "
        "unless somebody says so here. Do not use it to judge people.",
        f"Images are seen at {model.image_size} x {model.image_size} pixels, so small things and "
        "writing are lost. A longer text is cut.",
    ]


def _training(subject: Subject) -> list[str]:
    """Returns what the run's configuration says about its training."""
    config = subject.config
    if imported_from(subject.folder, subject.step):
        return ["That is not known: the weights were imported."]
    tokenizer = subject.folder / VISUAL_TOKENIZER / CONFIG_FILE
    rows = {
        "task": config.task.kind,
        "steps": f"{subject.step:,} of {config.run.steps:,}",
        "batch sizes": _batches(config),
        "peak learning rate": f"{config.optimizer.peak_lr:g}",
        "weight decay": f"{config.optimizer.weight_decay:g}",
        "seed": str(config.run.seed),
        "weights": subject.weights,
        "text tokenizer": "in this folder"
        if (subject.folder / TEXT_TOKENIZER).is_dir()
        else "none",
    }
    if tokenizer.is_file():
        settings = json.loads(tokenizer.read_text())["task"]["model"]
        rows["visual tokens"] = (
            f"{settings['codes']:,} codes of VQ-KD with teacher `{settings['teacher']}`"
        )
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]


def _batches(config: Any) -> str:
    """Returns the batch size of each stream that has data."""
    sections = {
        field.name: getattr(config.task, field.name) for field in dataclasses.fields(config.task)
    }
    return ", ".join(
        f"{name} {section.batch_size}"
        for name, section in sections.items()
        if getattr(section, "sources", ())
    )
