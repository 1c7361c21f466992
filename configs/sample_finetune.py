"""Fine-tunes the sample's network: on emoji, their questions or masks, or for retrieval.

Command: python -m vlbeit_jax.main --config=configs/sample_finetune.py:emoji_category \
             --config.run.start_from=RUN --config.task.image.sources=DATA --workdir=FT
         python -m vlbeit_jax.main --config=configs/sample_finetune.py:vqa_cell \
             --config.run.start_from=RUN --config.task.question.sources=DATA --workdir=FT
         python -m vlbeit_jax.main --config=configs/sample_finetune.py:segmentation \
             --config.run.start_from=RUN --config.task.image.sources=DATA --workdir=FT
         python -m vlbeit_jax.main --config=configs/sample_finetune.py:retrieval \
             --config.run.start_from=RUN --workdir=FT
         RUN is what launch/sample.sh has pretrained. Without run.start_from, training starts from
         random parameters, and texts need --config.task.text_tokenizer=RUN/text_tokenizer.
         python -m tools.emoji.sets makes DATA (docs/sample_transfer.md).
Cost:    400, 1000, 400 and 300 steps of 32 rows. launch/sample_transfer.sh runs each of them from
         two starts, in three folds or with three seeds; docs/sample_transfer.md has the time.
Figures: our own, from a pilot. Emoji are not cropped far; questions name a cell, so their pictures
         are not cropped at all. The rate and its decay from block to block suit the pretrained
         start. For a random start, set --config.optimizer.layer_decay=1 and a rate of its own
         (docs/sample_transfer.md).
"""

from typing import Any

from vlbeit_jax.config.common import OptimizerConfig, RunConfig
from vlbeit_jax.config.finetune import LabelledImagesConfig, MasksConfig, PairedStreamConfig
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.config.parse import to_config_dict
from vlbeit_jax.config.variants import choose
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.image_classification import ImageClassification
from vlbeit_jax.tasks.retrieval import Retrieval
from vlbeit_jax.tasks.segmentation import Segmentation
from vlbeit_jax.tasks.vqa import VQATask

STEPS = {"emoji_category": 400, "vqa_cell": 1000, "segmentation": 400, "retrieval": 300}
# The head needs a high rate, and the decay spares the lower blocks, whose frozen features are good.
# In segmentation, it was not compared with one rate for all blocks.
LAYER_DECAY = {"emoji_category": 0.5, "segmentation": 0.5}
RATES = {"emoji_category": 8e-3, "segmentation": 2e-2}


def get_config(name: str = "emoji_category"):
    """See the module's docstring."""
    name = choose("sample_finetune", name, list(STEPS))
    model = ModelConfig(
        image_size=64,
        patch_size=8,
        width=128,
        heads=2,
        ffn_width=512,
        depth=4,
        fused_layers=2,
        text_positions=64,
        vocabulary=2000,
        codes=256,
        like_start=True,
        drop_path=0.0,
    )
    plain: dict[str, Any] = {"batch_size": 32, "rand_augment": "none"}
    labelled = LabelledImagesConfig(
        **plain, crop_scale=0.7, erase=0.0, mixup=0.0, cutmix=0.0, view="squash"
    )
    question = PairedStreamConfig(**plain, text_length=16, crop_scale=1.0, flip=0.0)
    pair = PairedStreamConfig(**plain, text_length=24, crop_scale=0.7, sources=("sample:pairs",))
    masks = MasksConfig(
        batch_size=32, smallest_scale=0.8, largest_scale=1.25, photometric=False, view="whole"
    )
    task = {
        "emoji_category": ImageClassification(model=model, image=labelled, smoothing=0.0),
        "vqa_cell": VQATask(model=model, question=question, answers_least=1),
        "segmentation": Segmentation(model=model, image=masks, head_width=32, pools=(1, 2, 4)),
        "retrieval": Retrieval(model=model, pair=pair),
    }[name]
    steps = STEPS[name]
    run = RunConfig(steps=steps, log_every=100, evaluate_every=0, checkpoint_every=200, keep_last=1)
    optimizer = OptimizerConfig(
        peak_lr=RATES.get(name, 1e-3),
        layer_decay=LAYER_DECAY.get(name, 1.0),
        warmup_steps=steps // 10,
        clip_norm=1.0,
    )
    return to_config_dict(Config(task=task, run=run, optimizer=optimizer))
