"""How do I use the exported weights in PyTorch?

    python -m vlbeit_jax.convert --from=RUN --to=torch --out=EXPORT
    python examples/use_in_pytorch.py EXPORT --picture=cat.jpg --text="a cat on a mat"

Input: an export, a picture, a text. It needs torch, safetensors, sentencepiece and Pillow, but not
this package. Output: the shapes of the vectors, the cosine of picture and text after they have seen
each other, and the norm of the gradient, which shows that you can train the model further:

    image (1, 128)  text (1, 128)
    cosine of the pair's vectors: 0.13
    gradient norm of the pair's vectors: 5.21
"""

import argparse
import pathlib
import sys

import numpy as np
import sentencepiece
import torch
from PIL import Image


def main() -> None:
    """Loads the export, and computes forward and backward."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("export", type=pathlib.Path)
    parser.add_argument("--picture", required=True)
    parser.add_argument("--text", required=True)
    given = parser.parse_args()

    sys.path.insert(0, str(given.export))
    import vlbeit_torch

    model, _ = vlbeit_torch.load(given.export)
    image = vlbeit_torch.normalise(pixels_of(given.picture, model.config["image_size"]))
    text = pieces_of(given.text, given.export / "text_tokenizer" / "sentencepiece.model")
    with torch.no_grad():
        found = model(image=image, text=text)
    print(f"image {tuple(found.image_mean.shape)}  text {tuple(found.text_mean.shape)}")
    cosine = torch.nn.functional.cosine_similarity(found.image_mean, found.text_mean)
    print(f"cosine of the pair's vectors: {cosine.item():.2f}")

    # The model is an ordinary module: freeze, fine-tune or compile it as any other.
    found = model.train()(image=image, text=text)
    (found.image_mean.square().mean() + found.text_mean.square().mean()).backward()
    squares = [each.grad.square().sum() for each in model.parameters() if each.grad is not None]
    print(f"gradient norm of the pair's vectors: {torch.stack(squares).sum().sqrt().item():.2f}")


def pixels_of(path: str, side: int) -> torch.Tensor:
    """Returns a picture as uint8 [1, 3, side, side]."""
    picture = Image.open(path).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None]


def pieces_of(text: str, tokenizer: pathlib.Path) -> torch.Tensor:
    """Returns CLS, the text's word pieces and SEP as int64 [1, T]."""
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer))
    return torch.tensor([[2, *processor.encode(text), 3]])


if __name__ == "__main__":
    main()
