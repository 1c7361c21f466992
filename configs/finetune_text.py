"""Fine-tunes the language side of a base model on labelled texts.

Command: python -m vlbeit_jax.main --config=configs/finetune_text.py --workdir=FT \
             --config.run.start_from=RUN --config.task.text.sources=REVIEWS
         RUN is a pretraining run or an import. Network and text tokenizer are those of RUN; an
         import without one needs --config.task.text_tokenizer. Make the data with
         python -m vlbeit_jax.prepare --kind=labelled_texts --format=jsonl (docs/finetune.md).
Cost:    6,300 steps of 32 texts of up to 128 word pieces. Not run by us.
Figures: BERT's recipe for GLUE (arXiv 1810.04805, appendix A.3), as we remember it: batch 32, 3
         epochs (here of 67,000 texts), learning rate 2e-5 falling linearly after 10% of warm-up,
         weight decay .01. No text figures of VL-BEiT or BEiT-3 are public. Not run by us.
"""

from vlbeit_jax.config.common import OptimizerConfig, RunConfig
from vlbeit_jax.config.networks import SIZES, ModelConfig
from vlbeit_jax.config.parse import to_config_dict
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.text_classification import TextClassification

STEPS = 6300


def get_config():
    """See the module's docstring."""
    task = TextClassification(model=ModelConfig(**SIZES["base"], like_start=True), smoothing=0.0)
    optimizer = OptimizerConfig(
        peak_lr=2e-5,
        end_lr=0.0,
        warmup_steps=STEPS // 10,
        lr_decay="linear",
        beta2=0.999,
        eps=1e-8,
        weight_decay=0.01,
        clip_norm=1.0,
    )
    run = RunConfig(steps=STEPS, evaluate_every=STEPS // 6, checkpoint_every=STEPS // 6)
    return to_config_dict(Config(task=task, run=run, optimizer=optimizer))
