"""The exported PyTorch module with random parameters, without JAX."""

import torch

from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.convert.formats.torch_module import STANDALONE, model_config
from vlbeit_jax.convert.verify import module_of

SIZES = {
    "image_size": 32,
    "patch_size": 8,
    "width": 32,
    "depth": 2,
    "heads": 4,
    "ffn_width": 48,
    "fused_layers": 1,
    "text_positions": 16,
    "vocabulary": 300,
    "codes": 40,
}
# Each form has another attention mask, or other parameters.
FORMS = {
    "absolute": {},
    "relative": {"positions": "relative"},
    "BEiT-3's": {"decoupled": True, "sub_norm": True, "fused_layers": 0, "layer_scale": 0.0},
}


def random_model(form):
    """The module and a model of a form; no parameter is left at zero or one."""
    module = module_of(STANDALONE / "vlbeit_torch.py")
    model = module.VLBEiT(model_config(ModelConfig(**SIZES | FORMS[form])))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if value.ndim > 1 and "weight" in name and "words" not in name:
                value.copy_(noise / value[0].numel() ** 0.5)
            else:
                value.copy_(0.3 * noise + ("norm" in name and "weight" in name))
    return module, model.eval()


def random_pairs(rows, length, padded, seed=0):
    """Images in [-1, 1] and texts, of which ``padded`` ones end in padding."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(rows, 3, 32, 32, generator=generator) * 2 - 1
    text = torch.randint(5, 300, (rows, length), generator=generator)
    text[:, 0], text[:, -1] = 2, 3
    for row in range(padded):
        text[row, length // 2 + row :] = 0
    return {"image": image, "text": text}


def largest_difference(found, wanted, pad_of=None):
    """Over all outputs; the states of padding mean nothing, and are left out."""
    assert list(found) == list(wanted)
    largest = 0.0
    for name, value in wanted.items():
        valid = pad_of[:, 1:] != 0 if name == "text" and pad_of is not None else ...
        assert found[name].shape == value.shape, name
        largest = max(largest, float((found[name][valid] - value[valid]).abs().max()))
    return largest


# Each block rounds about a dozen times: norms, projections, logits, weights, sums. The errors are
# independent, so their squares add up. The unit is half the distance from 1 to the next number:
# 2^-8 with bfloat16's 8 bits, 2^-11 with float16's 11.
ROUNDINGS_PER_BLOCK = 12
UNITS = {torch.bfloat16: 2**-8, torch.float16: 2**-11}


def rounding_limit(dtype, depth):
    """What ``relative_error`` may be for a model that rounds to this type."""
    return (ROUNDINGS_PER_BLOCK * depth) ** 0.5 * UNITS[dtype]


def relative_error(found, wanted):
    """Root mean square of the difference, as a share of that of the values."""
    return float((found.float() - wanted).square().mean().sqrt() / wanted.square().mean().sqrt())
