"""What does the model see behind the masks?

    python examples/show_masks.py PICTURE [PICTURE ...] --out=masks.png [--model=RUN]

Input: pictures. Output: one image with a row for each picture: what the network sees, what is
hidden of it, the picture drawn from its own visual tokens, and the picture drawn from the tokens
that the model predicts behind the masks. A line for each picture says how many of the hidden tokens
it predicts exactly:

    cat.jpg: 21% of the hidden visual tokens

It needs a visual tokenizer that draws pixels (``task.model.teacher=pixels``), as the sample has.
"""

import argparse

import numpy as np
from PIL import Image

import vlbeit_jax

GAP = 4  # Pixels between pictures.


def main() -> None:
    """Writes the image and prints the accuracies."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="+")
    parser.add_argument("--out", required=True)
    parser.add_argument("--model", default="sample")
    parser.add_argument("--hidden", type=float, default=0.4)
    given = parser.parse_args()

    model = vlbeit_jax.load(given.model)
    rows = []
    for picture in given.pictures:
        views = model.masked_views(picture, hidden=given.hidden)
        rows.append([views.original, views.masked, views.through_tokens, views.predicted])
        print(f"{picture}: {views.accuracy:.0%} of the hidden visual tokens")
    Image.fromarray(sheet(rows)).save(given.out)
    print(f"wrote {given.out}")


def sheet(rows: list[list[np.ndarray]]) -> np.ndarray:
    """Returns pictures [side, side, 3] as one, with white gaps."""
    frame = ((0, GAP), (0, GAP), (0, 0))
    framed = [[np.pad(each, frame, constant_values=255) for each in row] for row in rows]
    return np.concatenate([np.concatenate(row, axis=1) for row in framed])


if __name__ == "__main__":
    main()
