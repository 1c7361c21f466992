"""Which word is missing? And does a picture help?

    python examples/fill_in_words.py "a red <mask>" [PICTURE] [--model=RUN] [--top=5]

Input: a text with <mask> where a word piece is missing, and, if you like, the picture to which it
belongs. Output: for each mask, the likeliest pieces and their probabilities. With a picture, the
pieces from the text alone stand beside those from both. A piece that begins a word has an
underscore in front:

    mask 1    text alone              with the picture
              1.2% _and               41.3% _heart
              0.9% _clip              12.0% _ball
"""

import argparse

import vlbeit_jax


def main() -> None:
    """Prints the likeliest word pieces of each mask."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text")
    parser.add_argument("picture", nargs="?")
    parser.add_argument("--model", default="sample")
    parser.add_argument("--top", type=int, default=5)
    given = parser.parse_args()

    model = vlbeit_jax.load(given.model)
    found = {"text alone": model.fill_mask(given.text, top=given.top)}
    if given.picture:
        found["with the picture"] = model.fill_mask(given.text, image=given.picture, top=given.top)
    for mask, columns in enumerate(zip(*found.values(), strict=True), start=1):
        print(f"{f'mask {mask}':10}" + "".join(f"{name:24}" for name in found).rstrip())
        for row in zip(*columns, strict=True):
            shown = [f"{probability:.1%} {piece}" for piece, probability in row]
            print(" " * 10 + "".join(f"{each:24}" for each in shown).rstrip())


if __name__ == "__main__":
    main()
