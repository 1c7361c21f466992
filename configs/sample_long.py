"""VL-BEiT on the sample data, with twice the width of configs/sample.py and more steps.

Command: python -m vlbeit_jax.main --config=configs/sample_long.py --workdir=RUN \
             --config.task.text.sources=TOKENS \
             --config.task.text_tokenizer=TEXT_TOKENIZER --config.task.visual_tokenizer=VQKD_RUN
         launch/sample.sh makes the three inputs; docs/sample_transfer.md has the whole command.
Cost:    6000 steps of 32 images, texts or pairs; 7.5M parameters. 88 minutes on one CPU core.
Expect:  higher masked accuracies of patches and captions than with configs/sample.py, not of texts,
         and features of pictures that are no better (docs/sample_transfer.md).
Figures: our own. All is as in configs/sample.py but the width, the steps, the probes, how often it
         evaluates and saves, and a lower rate with a longer warm-up for the wider network. At half
         the sample's steps, more width gained more over its random start than more pixels did, for
         pictures with all labels.
"""

import pathlib
import runpy


def get_config():
    """See the module's docstring."""
    sample = pathlib.Path(__file__).with_name("sample.py")
    config = runpy.run_path(str(sample))["get_config"]()
    config.task.model.update(width=256, heads=4, ffn_width=1024)
    config.task.probes.update(every=1000, images="sample:emoji", strength=1.0)
    config.run.update(steps=6000, evaluate_every=1000, checkpoint_every=500)
    config.optimizer.update(peak_lr=1.5e-3, warmup_steps=300)
    return config
