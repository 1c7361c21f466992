"""An independent count: operations of a step by hand-written formulas of the network's sizes.

Counted are matrix products, forward once and backward twice (the embedding of patches once: no
gradient goes to pixels).
"""

from vlbeit_jax.config.networks import ModelConfig, VisualTokenizerConfig
from vlbeit_jax.cost.flops import StepFlops
from vlbeit_jax.data.masking import masked_slots
from vlbeit_jax.models.teacher import target_width
from vlbeit_jax.tasks import Config
from vlbeit_jax.training.schedule import Schedule


def step_flops(config: Config, streams: tuple[str, ...] | None = None) -> StepFlops:
    """Of a step on some streams; None: the mean step of the schedule's cycle."""
    if streams is None:
        cycle = Schedule.parse(config.task.schedule).cycle
        steps = [step_flops(config, streams) for streams in cycle]
        return StepFlops(*(sum(values) / len(cycle) for values in zip(*steps, strict=True)))
    is_vqkd = config.task.kind == "vqkd"
    found = [_vqkd(config) if is_vqkd else _pretrain(config, stream) for stream in streams]
    return StepFlops(*(sum(values) for values in zip(*found, strict=True)))


def _pretrain(config: Config, name: str) -> StepFlops:
    task, data = config.task, getattr(config.task, name)
    model, has_image, has_text = task.model, name != "text", name != "image"
    length = (model.patches + 1) * has_image + (data.text_length if has_text else 0)
    forward = transformer(length, model.width, model.depth, model.ffn_width)
    if has_image:
        forward += 2 * model.width * data.num_masked_patches * model.codes
    if has_text:
        slots = masked_slots(data.text_length, data.masked_text)
        forward += 2 * model.width * slots * model.vocabulary
    patches = 2 * _patches(model) if has_image else 0
    frozen = encoder_flops(task.tokenizer_model) if has_image and not task.visual_tokens else 0
    return StepFlops(
        data.batch_size * (3 * forward + patches),
        data.batch_size * frozen,
        data.batch_size * length,
        data.batch_size,
    )


def _vqkd(config: Config) -> StepFlops:
    visual, batch = config.task.model, config.task.image.batch_size
    patches = visual.grid**2
    target = target_width(visual)
    decoder = transformer(patches + 1, visual.width, visual.decoder_depth, visual.ffn_width)
    decoder += 2 * patches * visual.width * (visual.code_width + visual.width + target)
    encoder = (
        encoder_flops(visual) - 2 * patches * visual.code_width * visual.codes
    )  # No gradient goes through the search.
    model = 3 * (encoder + decoder) - _patches(visual)
    search = encoder_flops(visual) - encoder
    teacher = 0.0
    if visual.teacher != "pixels":
        teacher = transformer(patches + 1, 768, 12, 3072) + 2 * patches * 768 * (
            3 * visual.patch_size**2 + target
        )
    return StepFlops(batch * (model + search), batch * teacher, batch * (patches + 1), batch)


def encoder_flops(visual: VisualTokenizerConfig) -> float:
    """Forward, one image to its visual tokens."""
    patches = visual.grid**2
    ends = (
        2 * patches * visual.width * (visual.width + visual.code_width)
        + 2 * patches * visual.code_width * visual.codes
    )
    return (
        _patches(visual)
        + transformer(patches + 1, visual.width, visual.encoder_depth, visual.ffn_width)
        + ends
    )


def transformer(length: int, width: int, depth: int, ffn_width: int) -> float:
    """Forward, one sequence: projections, attention, experts."""
    projections = 2 * length * width * 4 * width
    attention = 2 * 2 * length * length * width
    experts = 2 * length * 2 * width * ffn_width
    return depth * (projections + attention + experts)


def _patches(model: ModelConfig | VisualTokenizerConfig) -> float:
    return 2 * model.grid**2 * 3 * model.patch_size**2 * model.width
