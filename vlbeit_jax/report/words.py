"""What the figures of pretraining mean, for somebody who has not read the paper."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from vlbeit_jax.objectives.masked_prediction import TERMS
from vlbeit_jax.report.verdicts import Bounds, Level, Verdict, above, gain
from vlbeit_jax.tasks.pretrain import Pretrain
from vlbeit_jax.types import Modality

# By stream: what it holds.
STREAMS = {
    "image": "pictures alone",
    "text": "texts alone",
    "pair": "pictures with captions",
}
# By modality: what is predicted, one and several of them.
TARGETS = {
    Modality.VISION: ("visual token", "visual tokens"),
    Modality.LANGUAGE: ("word piece", "word pieces"),
}


class Term(NamedTuple):
    """One thing that the model learns to predict.

    Attributes:
      stream: whose records it reads.
      modality: of what is predicted.
      title: its name in words.
    """

    stream: str
    modality: Modality
    title: str


TITLES = {
    "mim": "Patches of pictures alone",
    "mlm": "Words of texts alone",
    "mvlm_image": "Patches of pictures with a caption",
    "mvlm_text": "Words of captions with a picture",
}
BY_NAME = {
    name: Term(stream, modality, TITLES[name])
    for stream, terms in TERMS.items()
    for modality, name in terms.items()
}


def meaning(name: str, task: Pretrain) -> str:
    """Returns what a term asks of the model, in one or two sentences."""
    term, patches = BY_NAME[name], task.model.patches
    image, text, pair = task.image, task.text, task.pair
    if term.stream == "image":
        return (
            f"{image.num_masked_patches} of the {patches} patches of a picture are hidden. From "
            "the others, the model predicts the visual token of each hidden patch."
        )
    if term.stream == "text":
        return (
            f"{text.masked_text:.0%} of the word pieces of a text are hidden. From the others, the "
            "model predicts each hidden piece."
        )
    hidden = (
        f"{pair.num_masked_patches} of {patches} patches and {pair.masked_text:.0%} of the "
        "caption's word pieces are hidden. From what is left of both, the model predicts "
    )
    if term.modality is Modality.VISION:
        return hidden + "the visual token of each hidden patch."
    return hidden + "each hidden piece."


def accuracy_verdict(
    name: str, figures: Mapping[str, Any], bounds: Bounds, trained: bool
) -> Verdict:
    """Returns what the accuracy of a term says.

    Args:
      name: of the term.
      figures: its figures.
      bounds: of its accuracy.
      trained: whether the run was trained on the term's stream.
    """
    term = BY_NAME[name]
    if not trained:
        reason = (
            f"This run saw no {STREAMS[term.stream]}. The figure shows how much the other streams "
            "help."
        )
        return Verdict(Level.NONE, "not trained", reason)
    verdict = above(figures["accuracy"], bounds, figures["unigram"], "unigram baseline")
    if verdict.level is not Level.BAD:
        return verdict
    targets = TARGETS[term.modality][1]
    reason = (
        f"The unigram baseline is {figures['unigram']:.1%}: the model has learnt only how frequent "
        f"the {targets} are."
    )
    if not figures["accuracy"] > figures["chance"]:
        reason = "The model has learnt nothing: a blind guess is right as often."
    return Verdict(verdict.level, verdict.short, reason)


GAIN_TITLES = {
    "gain_text": "What the picture adds to the caption",
    "gain_image": "What the caption adds to the picture",
}
GAIN_MEANINGS = {
    "gain_text": "Accuracy on the hidden words of captions with their own picture, minus that with "
    "the picture of another pair.",
    "gain_image": "Accuracy on the hidden patches of pictures with their own caption, minus that "
    "with the caption of another pair.",
}


def gain_verdict(name: str, figures: Mapping[str, float], trained: bool) -> Verdict:
    """Returns what a cross-modal gain says.

    Args:
      name: "gain_text" or "gain_image".
      figures: its value with the bounds of its interval.
      trained: whether the run was trained on pairs.
    """
    if not trained:
        return Verdict(Level.NONE, "not trained", "This run saw no pictures with captions.")
    read, helper = ("caption", "picture") if name == "gain_text" else ("picture", "caption")
    return gain(
        figures,
        good=f"The model uses the {helper} to fill in the {read}.",
        unclear=f"the model uses the {helper} to fill in the {read}",
        bad=f"A wrong {helper} helps more than the right one. Check that pictures and captions "
        "belong together.",
    )


def glossary(task: Pretrain, streams: tuple[str, ...]) -> list[tuple[str, str]]:
    """Returns the terms of the tables with their meaning, as far as some streams need them."""
    modalities = {modality for stream in streams for modality in TERMS[stream]}
    entries = []
    if Modality.VISION in modalities:
        meaning = (
            f"the number of a kind of patch. The visual tokenizer sorts patches into "
            f"{task.model.codes:,} kinds; it was trained before this run."
        )
        entries.append(("Visual token", meaning))
    if Modality.LANGUAGE in modalities:
        meaning = (
            "a word or a part of one. The vocabulary of the text tokenizer has "
            f"{task.model.vocabulary:,} pieces."
        )
        entries.append(("Word piece", meaning))
    return [
        *entries,
        (
            "Accuracy",
            "the share of hidden places where the model's first guess is right. It is measured on "
            "records that the model was not trained on.",
        ),
        (
            "Unigram baseline",
            "the accuracy of always giving the most frequent answer. Nobody who ignores the "
            "picture and the text can do better.",
        ),
        ("Chance", "the accuracy of a blind guess, when all answers are equally likely."),
        (
            "Loss",
            "the mean of −log p over the hidden places, where p is the probability that the model "
            "gives to the right answer. Lower is better.",
        ),
        (
            "95% interval",
            "how far a figure may move if other records of the same kind are measured. It does not "
            "say how far another run would differ.",
        ),
    ]
