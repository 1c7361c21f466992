"""Which pictures in a folder look like this one?

    python examples/search_pictures.py FOLDER PICTURE [--model=RUN] [--top=5]

Input: a folder of pictures and one picture. Output: a line for each of the nearest pictures, with
the cosine of its vector and that of PICTURE:

    0.962  pictures/red_ball.png
    0.941  pictures/orange.png

The script keeps the vectors in FOLDER/vectors.npz, so that a second search encodes only PICTURE.
The model is the sample in the package unless you name a run of your own. A run that was fine-tuned
for retrieval also finds pictures by words: see ``search`` in docs/python.md.
"""

import argparse
import pathlib

import numpy as np

import vlbeit_jax

ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"}


def main() -> None:
    """Prints the nearest pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("picture", type=pathlib.Path)
    parser.add_argument("--model", default="sample")
    parser.add_argument("--top", type=int, default=5)
    given = parser.parse_args()

    model = vlbeit_jax.load(given.model)
    paths, vectors = vectors_of(model, given.folder)
    (wanted,) = unit(model.encode(images=[given.picture]).image_cls)
    cosines = vectors @ wanted
    for number in np.argsort(-cosines)[: given.top]:
        print(f"{cosines[number]:.3f}  {paths[number]}")


def vectors_of(model, folder: pathlib.Path) -> tuple[list[str], np.ndarray]:
    """Returns the pictures in a folder and their unit vectors [count, width].

    Neighbours by the state of CLS are a little better than by the mean state (docs/python.md).
    """
    paths = sorted(str(each) for each in folder.iterdir() if each.suffix.lower() in ENDINGS)
    if not paths:
        raise SystemExit(f"error: {folder} has no pictures ({', '.join(sorted(ENDINGS))})")
    kept = folder / "vectors.npz"
    # Vectors of another model or of other files are of no use.
    key = [str(model), *(f"{each} {pathlib.Path(each).stat().st_mtime_ns}" for each in paths)]
    if kept.exists():
        with np.load(kept) as saved:
            if saved["key"].tolist() == key:
                return paths, saved["vectors"]
    vectors = unit(model.encode(images=paths).image_cls)
    np.savez(kept, key=key, vectors=vectors)
    return paths, vectors


def unit(vectors: np.ndarray) -> np.ndarray:
    """Returns the vectors with length 1, so that their products are cosines."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


if __name__ == "__main__":
    main()
