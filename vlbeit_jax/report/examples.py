"""Examples on the page: masked texts with guesses, pictures in stages."""

from collections.abc import Sequence

import numpy as np

from vlbeit_jax.data.pieces import SIGNS, Fate
from vlbeit_jax.report.markup import (
    Child,
    Html,
    element,
    figure,
    folded,
    join,
    note,
    picture,
    table,
)
from vlbeit_jax.report.panels import picture as as_png
from vlbeit_jax.report.samples import Answer, Guess, MaskedText
from vlbeit_jax.tasks.masked_pictures import MaskedPictures

SIDE = 96  # Pixels of a picture on the page.


def legend() -> Html:
    """Returns how the examples of texts are read."""
    return note(
        "Boxes are the places that the model has to predict, with their numbers. ? is hidden. "
        "≠ is replaced by another piece, = is left as it was; the model does not know which. "
        "Beside each guess stands its probability. ✓ marks a first guess that is right; a right "
        "answer further down is underlined. A hyphen in front marks a piece that continues a word, "
        "␣ a space, ¶ the next document."
    )


def text_examples(texts: Sequence[MaskedText], shown: int) -> list[Html]:
    """Returns examples, some of them on request only.

    Args:
      texts: the examples.
      shown: how many are shown at once.
    """
    examples = [_text_example(each) for each in texts]
    rest = examples[shown:]
    return [*examples[:shown], *([folded(f"{len(rest)} more examples", *rest)] if rest else [])]


def _text_example(text: MaskedText) -> Html:
    """Returns a text with its masks, its guesses and its pictures."""
    head = ["Right", "Guesses, the likeliest first"]
    if text.other is not None:
        head = ["Right", "Guesses with its own picture", "Guesses with a wrong picture"]
    rows = [
        [_numbered(number, guess), *_guesses(guess)]
        for number, guess in enumerate(text.guesses, start=1)
    ]
    return element(
        "div",
        _images(text),
        element("p", _masked(text), class_="text"),
        note("As written: ", _written(text)),
        table(_score(text), head, rows),
        class_="example",
    )


def _score(text: MaskedText) -> str:
    """Returns how many first guesses are right."""
    count = len(text.guesses)
    own = sum(guess.own.likeliest[0][0] == guess.truth for guess in text.guesses)
    if text.other is None:
        return f"Right first guesses: {own} of {count}."
    wrong = sum(
        guess.wrong is not None and guess.wrong.likeliest[0][0] == guess.truth
        for guess in text.guesses
    )
    return (
        f"Right first guesses: {own} of {count} with its own picture, {wrong} of {count} with a "
        "wrong one."
    )


def _written(text: MaskedText) -> str:
    truths = {guess.position: guess.truth for guess in text.guesses}
    pieces = (truths.get(place, piece) for place, piece in enumerate(text.pieces))
    return "".join(piece.in_text for piece in pieces).strip()


def _numbered(number: int, guess: Guess) -> Child:
    return [f"{number}: ", element("strong", guess.truth.alone)]


def _guesses(guess: Guess) -> list[Html]:
    answers = [guess.own] if guess.wrong is None else [guess.own, guess.wrong]
    return [_answer(answer, guess) for answer in answers]


def _answer(answer: Answer, guess: Guess) -> Html:
    shown = [
        _guess(piece.alone, share, piece == guess.truth, is_first=not place)
        for place, (piece, share) in enumerate(answer.likeliest)
    ]
    if all(piece != guess.truth for piece, _ in answer.likeliest):
        told = f"(the right one: {percent(answer.of_truth)})"
        shown.append(element("span", told, class_="guess note"))
    return join(shown, " ")


def _guess(text: str, share: float, right: bool, *, is_first: bool) -> Html:
    told = f"{text} {percent(share)}"
    if not right:
        return element("span", told, class_="guess")
    if is_first:
        return element("span", f"✓ {told}", class_="guess first")
    return element("span", told, class_="guess later")


def percent(share: float) -> str:
    """Returns a probability in whole percents; a small one is not shown as 0."""
    return "<1%" if share < 0.005 else f"{share:.0%}"


def _masked(text: MaskedText) -> Html:
    numbers = {
        guess.position: (number, guess) for number, guess in enumerate(text.guesses, start=1)
    }
    parts: list[Child] = []
    for place, piece in enumerate(text.pieces):
        if place not in numbers:
            parts.append(piece.in_text)
            continue
        number, guess = numbers[place]
        seen = "" if guess.fate is Fate.HIDDEN else piece.alone
        # In the text as it was, a space stands before a piece that begins a word.
        parts.append(" " if guess.truth.starts_word else "")
        parts.append(element("mark", element("sup", number), SIGNS[guess.fate], seen))
    return join(parts)


def _images(text: MaskedText) -> Html | None:
    if text.image is None:
        return None
    shown = [_image(text.image, "own picture", "The picture of this caption")]
    if text.other is not None:
        shown.append(_image(text.other, "wrong picture", "The picture of another caption"))
    return element("div", shown, class_="strip")


def _image(image: np.ndarray, caption: str, alt: str) -> Html:
    return figure(picture(as_png(image), alt, width=SIDE, height=SIDE), caption)


def picture_cards(pictures: MaskedPictures) -> Html:
    """Returns a card per image: original, hidden patches, the best possible, the prediction."""
    cards = []
    for index, accuracy in enumerate(pictures.accuracy):
        stages = [
            (pictures.original[index], "original"),
            (pictures.masked[index], "masked"),
            (pictures.predicted[index], "predicted"),
            (pictures.through_tokens[index], "best possible"),
        ]
        told = element("p", f"{accuracy:.0%} of the hidden patches are right.", class_="note")
        cards.append(_card(stages, index, told))
    return element("ul", cards, class_="cards")


def token_cards(images: np.ndarray, drawn: np.ndarray) -> Html:
    """Returns a card per image: the original, and what is drawn of its visual tokens."""
    cards = [
        _card([(image, "original"), (other, "drawn from visual tokens")], index, None)
        for index, (image, other) in enumerate(zip(images, drawn, strict=True))
    ]
    return element("ul", cards, class_="cards")


def attention_cards(images: np.ndarray, drawn: np.ndarray, shares: np.ndarray) -> Html:
    """Returns a card per image: the image, and its patches in the colours of their attention.

    Args:
      images: as the network sees them.
      drawn: the same in colours.
      shares: of the attention of CLS that goes to the patches.
    """
    cards = []
    for index, share in enumerate(shares):
        told = element("p", f"{share:.0%} of the attention goes to patches.", class_="note")
        stages = [(images[index], "picture"), (drawn[index], "attention of CLS")]
        cards.append(_card(stages, index, told))
    return element("ul", cards, class_="cards")


def _card(stages: Sequence[tuple[np.ndarray, str]], index: int, told: Html | None) -> Html:
    shown = [_image(image, caption, f"Picture {index + 1}, {caption}") for image, caption in stages]
    return element("li", element("div", shown, class_="strip"), told, class_="card")
