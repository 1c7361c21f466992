"""VL-BEiT's heads and losses, and VQ-KD, in NumPy float64, written from the papers alone.

They build on VLMo's network in ``vlbeit_jax.convert.reference``, which --to=vlmo --verify uses too.
"""

import numpy as np

from vlbeit_jax.convert.reference import blocks, layer_norm, linear, patch_embed, states


def unit(x):
    """Vectors of length one."""
    return x / np.sqrt((x**2).sum(-1, keepdims=True))


def vlbeit(w, net, image=None, masked=None, ids=None, valid=None):
    """States, and the logits at every patch and at every text position."""
    images = net.grid**2 + 1 if image is not None else 0
    x = states(w, net, image, masked, ids, valid)
    found = {"states": x}
    if images:
        found["image"] = linear(w, "mim_head", x[:, 1:images])
    if ids is not None:
        found["text"] = linear(w, "mlm_head", x[:, images:])
        found["text"][..., net.vocabulary :] = -np.inf
    return found


def vit(w, prefix, image, net):
    """VQ-KD's transformers: patch states without CLS, after `fc_norm`."""
    x = patch_embed(w, f"{prefix}patch_embed.proj", image, net.patch)
    x = (
        np.concatenate([np.broadcast_to(w[f"{prefix}cls_token"], (len(x), 1, x.shape[-1])), x], 1)
        + w[f"{prefix}pos_embed"]
    )
    inside = {name.removeprefix(prefix): w[name] for name in w if name.startswith(prefix)}
    x = blocks(inside, x, np.ones(x.shape[:2], bool), net, x.shape[1], 0)
    return layer_norm(w, f"{prefix}fc_norm", x[:, 1:], net)


def task_layer(w, name, x):
    """Linear, tanh, linear."""
    return linear(w, f"{name}.2", np.tanh(linear(w, f"{name}.0", x)))


def vqkd_encode(w, net, image):
    """Unit features [B, N, E] and the code of each, the nearest by squared distance."""
    z = unit(task_layer(w, "encode_task_layer", vit(w, "encoder.", image, net)))
    codebook = unit(w["quantize.embedding.weight"])
    distance = ((z[..., None, :] - codebook) ** 2).sum(-1)
    return z, distance.argmin(-1)


def vqkd_decode(w, net, codes):
    """Codes [B, N, E], as an image of ``grid`` x ``grid`` pixels, to teacher features [B, N, A]."""
    image = codes.reshape(len(codes), net.grid, net.grid, -1)
    return task_layer(w, "decode_task_layer", vit(w, "decoder.", image, net))


def cross_entropy(logits, labels):
    """Of every position, in nats."""
    top = logits.max(-1, keepdims=True)
    log_total = top[..., 0] + np.log(np.exp(logits - top).sum(-1))
    return log_total - np.take_along_axis(logits, labels[..., None], -1)[..., 0]


def distillation(rec, target, z, e):
    """VQ-KD's loss over all patches: 1 - cosine, and the commitment of z [B, N, E] to its code."""
    return (1 - (unit(rec) * unit(target)).sum(-1)).mean(), ((e - z) ** 2).mean()
