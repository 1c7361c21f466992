"""VLMo's network in NumPy float64, under its parameter names, written from the paper alone.

--to=vlmo --verify compares exports with it, because VLMo's own program cannot be installed.
"""

import dataclasses
import functools
from dataclasses import dataclass

import numpy as np
from scipy.special import erf

TEXT, IMAGE = 0, 1  # Rows of the token type table, in VLMo's order.


@dataclass(frozen=True)
class Net:
    """What the parameters do not tell.

    Attributes:
      depth: number of blocks.
      heads: attention heads.
      grid: patches per side.
      patch: pixels per side of a patch.
      fused: top blocks in which pairs use the vision-language expert.
      text_positions: longest text of the relative table.
      vocabulary: rows of the text head that can be predicted.
      relative: whether positions are relative.
      eps: of layer norms.
      tanh_gelu: whether GELU is the tanh approximation.
    """

    depth: int
    heads: int
    grid: int
    patch: int
    fused: int = 0
    text_positions: int = 0
    vocabulary: int = 0
    relative: bool = False
    eps: float = 1e-6
    tanh_gelu: bool = False


def gelu(x, net):
    """The error-function form; the tanh form is a control, which tests must tell apart."""
    if net.tanh_gelu:
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


def layer_norm(w, name, x, net):
    """Over the last axis."""
    x = x - x.mean(-1, keepdims=True)
    return (
        x / np.sqrt((x**2).mean(-1, keepdims=True) + net.eps) * w[f"{name}.weight"]
        + w[f"{name}.bias"]
    )


def linear(w, name, x):
    """PyTorch's convention: weight [out, in]."""
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def softmax(x):
    """Over the last axis."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def image_index(grid):
    """[N + 1, N + 1] table rows: query minus key, CLS first."""
    side, cls = 2 * grid - 1, (2 * grid - 1) ** 2
    rows = np.empty((grid * grid + 1,) * 2, int)
    for i in range(grid * grid):
        for j in range(grid * grid):
            (y, x), (v, u) = divmod(i, grid), divmod(j, grid)
            rows[i + 1, j + 1] = (y - v + grid - 1) * side + (x - u + grid - 1)
    rows[0, :] = cls
    rows[:, 0] = cls + 1
    rows[0, 0] = cls + 2
    return rows


def text_index(grid, text_positions, length):
    """[T, T] table rows: key minus query, the text's CLS first."""
    first = (2 * grid - 1) ** 2 + 3 + 2
    centre = first + text_positions - 2
    cls = first + 2 * (text_positions - 1) - 1
    rows = np.empty((length, length), int)
    for i in range(1, length):
        for j in range(1, length):
            rows[i, j] = centre + (j - i)
    rows[0, :] = cls
    rows[:, 0] = cls + 1
    rows[0, 0] = cls + 2
    return rows


@functools.cache
def joint_index(net, image, text):
    """Image first, then text; either may be absent (image: bool, text: its length)."""
    cross = (2 * net.grid - 1) ** 2 + 3
    n = net.grid**2 + 1 if image else 0
    rows = np.empty((n + text, n + text), int)
    if image:
        rows[:n, :n] = image_index(net.grid)
    if text:
        rows[n:, n:] = text_index(net.grid, net.text_positions, text)
    rows[n:, :n] = cross  # text query, image key
    rows[:n, n:] = cross + 1
    return rows


def attention(w, name, x, valid, bias, net):
    """One head after the other; keys where ``valid`` is False get no weight.

    ``valid`` is [B, keys], or [B, queries, keys] if queries see different keys.
    """
    b, t, d = x.shape
    seen = valid if valid.ndim == 3 else valid[:, None, :]
    fused_bias = np.concatenate([w[f"{name}.q_bias"], np.zeros(d), w[f"{name}.v_bias"]])
    qkv = (x @ w[f"{name}.qkv.weight"].T + fused_bias).reshape(b, t, 3, net.heads, d // net.heads)
    q, k, v = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
    out = np.empty((b, t, net.heads, d // net.heads))
    for h in range(net.heads):
        scores = q[:, :, h] @ k[:, :, h].transpose(0, 2, 1) / np.sqrt(d // net.heads)
        if bias is not None:
            scores = scores + bias[h]
        scores = np.where(seen, scores, -np.inf)
        out[:, :, h] = softmax(scores) @ v[:, :, h]
    return linear(w, f"{name}.proj", out.reshape(b, t, d))


def expert(w, block, which, x, net):
    """Norm and feed-forward network of one modality."""
    suffix = f"_{which}" if which else ""
    x = layer_norm(w, f"{block}.norm2{suffix}", x, net)
    return linear(
        w, f"{block}.mlp{suffix}.fc2", gelu(linear(w, f"{block}.mlp{suffix}.fc1", x), net)
    )


def feed_forward(w, layer, x, net, images, texts):
    """The experts of a block; ``images`` and ``texts`` are token counts, images come first."""
    block = f"blocks.{layer}"
    if f"{block}.norm2.weight" in w:  # A plain ViT has one expert.
        return expert(w, block, "", x, net)
    if images and texts and layer >= net.depth - net.fused:
        return expert(w, block, "vl", x, net)
    parts = [expert(w, block, "imag", x[:, :images], net)] if images else []
    parts += [expert(w, block, "text", x[:, images:], net)] if texts else []
    return np.concatenate(parts, 1)


def blocks(w, x, valid, net, images, texts):
    """All blocks, without the last norm."""
    d = x.shape[-1]
    for layer in range(net.depth):
        block = f"blocks.{layer}"
        bias = None
        if net.relative:
            columns = w["relative_position_bias_table"][
                :, net.heads * layer : net.heads * (layer + 1)
            ]
            bias = columns[joint_index(net, images > 0, texts)].transpose(2, 0, 1)
        g1, g2 = w.get(f"{block}.gamma_1", np.ones(d)), w.get(f"{block}.gamma_2", np.ones(d))
        x = x + g1 * attention(
            w, f"{block}.attn", layer_norm(w, f"{block}.norm1", x, net), valid, bias, net
        )
        x = x + g2 * feed_forward(w, layer, x, net, images, texts)
    return x


def patch_embed(w, name, image, patch):
    """Image [B, height, width, channels] to [B, N, D], patch by patch, row by row."""
    kernel, bias = w[f"{name}.weight"], w[f"{name}.bias"]  # [D, channels, P, P]
    b, height, width, _ = image.shape
    out = []
    for y in range(0, height, patch):
        for x in range(0, width, patch):
            out.append(
                np.einsum("bhwc,dchw->bd", image[:, y : y + patch, x : x + patch], kernel) + bias
            )
    return np.stack(out, 1)


def image_tokens(w, image, masked, net):
    """CLS and patches; positions are added unless they are relative."""
    x = patch_embed(w, "patch_embed.proj", image, net.patch)
    if masked is not None:
        x = np.where(masked[..., None], w["mask_token"], x)
    x = np.concatenate([np.broadcast_to(w["cls_token"], (len(x), 1, x.shape[-1])), x], 1)
    if not net.relative:
        x = x + w["pos_embed"]
    return x + w["token_type_embeddings.weight"][IMAGE]


def text_tokens(w, ids, net):
    """Word pieces; positions are added, or, if they are relative, words are normalised."""
    x = w["text_embeddings.word_embeddings.weight"][ids]
    if net.relative:
        x = layer_norm(w, "text_embeddings.LayerNorm", x, dataclasses.replace(net, eps=1e-12))
    else:
        x = x + w["text_embeddings.position_embeddings.weight"][: ids.shape[1]]
    return x + w["token_type_embeddings.weight"][TEXT]


def states(w, net, image=None, masked=None, ids=None, valid=None):
    """Final states [B, L, D], images first.

    Args:
      w: parameters by name.
      net: sizes.
      image: [B, height, width, 3].
      masked: bool [B, N], True where the mask token replaces a patch.
      ids: word pieces [B, T].
      valid: bool [B, T], False for padding.
    """
    images, texts = (
        (net.grid**2 + 1 if image is not None else 0),
        (ids.shape[1] if ids is not None else 0),
    )
    parts, present = [], []
    if images:
        parts.append(image_tokens(w, image, masked, net))
        present.append(np.ones(parts[-1].shape[:2], bool))
    if texts:
        parts.append(text_tokens(w, ids, net))
        present.append(valid)
    x = blocks(w, np.concatenate(parts, 1), np.concatenate(present, 1), net, images, texts)
    return layer_norm(w, "norm", x, net)
