"""The networks (flax.linen): parameters and their logical axes.

From the bottom up: ``params`` is how a parameter declares its facts; ``layers`` own parameters;
``tokens`` is what flows through a network. ``embed`` makes tokens, ``block`` and ``multiway`` are
the Transformer (``decoupled``: BEiT-3's attention; ``earlier``: tokens that were read before), and
``backbone`` is both together, which every task shares. ``vocabulary`` has the word table and the
word head, ``heads`` all other heads.

Whole networks: ``vlbeit`` (pretraining), ``visual_tokenizer`` (VQ-KD) with its ``teacher`` and
``dalle``'s encoder, and for fine-tuning ``classifier``, ``vqa``, ``reasoner``, ``retrieval``,
``captioner`` and ``segmenter`` (``convolutions``). ``attended`` looks into a forward pass.
"""
