"""BEiT-3 with its heads of fine-tuning, in NumPy float64.

Written from the paper (arXiv 2208.10442) and its published code's names: ``w`` holds tensors as
PyTorch lays them out. Vision is A, language is B.
"""

import dataclasses

import numpy as np
from scipy.special import erf

EPS = 1e-5


@dataclasses.dataclass(frozen=True)
class Net:
    """What the tensors do not tell; the last three are controls that tests must tell apart."""

    depth: int
    heads: int
    patch: int
    tanh_gelu: bool = False
    eps: float = EPS
    pooled: int = 0


def norm(w, name, x, net):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + net.eps)
    return x * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(w, name, x):
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)


def gelu(x, net):
    if net.tanh_gelu:
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


def by_side(x, images, fn):
    """Applies ``fn(side, tokens)`` to the image's tokens, which come first, and to the text's."""
    parts = [fn("A", x[:, :images])] if images else []
    return np.concatenate([*parts, *([fn("B", x[:, images:])] if images < x.shape[1] else [])], 1)


def attention(w, layer, x, valid, images, net):
    attn, (b, t, d) = f"{layer}.self_attn", x.shape

    def project(part):
        y = by_side(x, images, lambda side, x: linear(w, f"{attn}.{part}_proj.{side}", x))
        return y.reshape(b, t, net.heads, -1)

    q, k, v = (project(part) for part in "qkv")
    scores = np.einsum("bqhc,bkhc->bhqk", q, k) / np.sqrt(d // net.heads)
    seen = valid[:, None] if valid.ndim == 3 else valid[:, None, None]
    scores = np.where(seen, scores, -np.inf)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    mixed = np.einsum("bhqk,bkhc->bqhc", shares, v).reshape(b, t, d)
    mixed = by_side(mixed, images, lambda side, x: norm(w, f"{attn}.inner_attn_ln.{side}", x, net))
    return by_side(mixed, images, lambda side, x: linear(w, f"{attn}.out_proj.{side}", x))


def feed_forward(w, layer, x, images, net):
    def expert(side, x):
        ffn = f"{layer}.ffn.{side}"
        hidden = gelu(linear(w, f"{ffn}.fc1", x), net)
        return linear(w, f"{ffn}.fc2", norm(w, f"{ffn}.ffn_layernorm", hidden, net))

    return by_side(x, images, expert)


def image_tokens(w, image, net):
    """Image [B, height, width, 3], already normalised, to CLS and patches with positions."""
    kernel, side = w["beit3.vision_embed.proj.weight"], net.patch
    b, height, width, _ = image.shape
    patches = [
        np.einsum("bhwc,dchw->bd", image[:, y : y + side, x : x + side], kernel)
        for y in range(0, height, side)
        for x in range(0, width, side)
    ]
    x = np.stack(patches, 1) + w["beit3.vision_embed.proj.bias"]
    cls = np.broadcast_to(w["beit3.vision_embed.cls_token"], (b, 1, x.shape[-1]))
    x = np.concatenate([cls, x], 1)
    return x + w["beit3.encoder.embed_positions.A.weight"][2:]


def states(w, net, image=None, ids=None, valid=None, final_norm=True, mask=None):
    """States [B, L, D] of the image's tokens, then of the text's.

    ``mask`` is [L, L], True where a query (row) may see a key; by default each sees all.
    """
    parts, present = [], []
    if image is not None:
        parts.append(image_tokens(w, image, net))
        present.append(np.ones(parts[0].shape[:2], bool))
    images = parts[0].shape[1] if parts else 0
    if ids is not None:
        positions = w["beit3.encoder.embed_positions.B.weight"][2 : 2 + ids.shape[1]]
        parts.append(w["beit3.text_embed.weight"][ids] + positions)
        present.append(valid)
    x, valid = np.concatenate(parts, 1), np.concatenate(present, 1)
    valid = valid if mask is None else valid[:, None] & mask

    def normed(name, x):
        return by_side(x, images, lambda side, x: norm(w, f"{name}.{side}", x, net))

    for block in range(net.depth):
        layer = f"beit3.encoder.layers.{block}"
        x = x + attention(w, layer, normed(f"{layer}.self_attn_layer_norm", x), valid, images, net)
        x = x + feed_forward(w, layer, normed(f"{layer}.final_layer_norm", x), images, net)
    return normed("beit3.encoder.layer_norm", x) if final_norm else x


def answer_logits(w, net, image, ids, valid):
    """Logits of the answers."""
    x = states(w, net, image, ids, valid, final_norm=False)[:, net.pooled]
    pooled = np.tanh(linear(w, "pooler.dense", norm(w, "pooler.norm", x, net)))
    return linear(w, "head.3", gelu(norm(w, "head.1", linear(w, "head.0", pooled), net), net))


def truth_logits(w, net, images, ids, valid):
    """Logits of false and true, from the states of CLS of image, text, image and text."""
    first = ids.shape[1]
    four = []
    for image in images:
        x = states(w, net, image, ids, valid)
        four += [x[:, net.pooled], x[:, -first]]
    hidden = linear(w, "head.dense1", norm(w, "head.norm1", np.concatenate(four, -1), net))
    return linear(w, "head.dense2", gelu(norm(w, "head.norm2", hidden, net), net))


def class_logits(w, net, image):
    """Logits of classes, from the mean of the patches' states; CLS is left out."""
    x = states(w, net, image, final_norm=False)[:, 1 - net.pooled :].mean(1)
    return linear(w, "head", norm(w, "fc_norm", x, net))


def embeddings(w, net, image, ids, valid):
    """Unit vectors of the images and of the texts."""
    found = []
    for name, x in (
        ("vision_head", states(w, net, image)),
        ("language_head", states(w, net, None, ids, valid)),
    ):
        x = linear(w, name, x[:, net.pooled])
        found.append(x / np.linalg.norm(x, axis=-1, keepdims=True))
    return found


def caption_logits(w, net, image, ids, valid, causal=True):
    """Logits [B, T, V] of the piece at each position of captions.

    The image sees itself alone, a piece sees the image and the pieces up to its own position.
    """
    images = (image.shape[1] // net.patch) ** 2 + 1
    mask = np.zeros((images + ids.shape[1],) * 2, bool)
    mask[:, :images] = True
    for place in range(images, len(mask)):
        mask[place, images : place + 1 if causal else None] = True
    return linear(w, "mlm_head", states(w, net, image, ids, valid, mask=mask)[:, images:])
