"""Weights in and out: tables of rules between our parameters and other programs' tensors.

``rules`` reads a table in both directions; ``permutations`` says how values lie in the other
program; ``tables`` has rules that formats share. ``formats`` has one file a format, ``heads`` one a
head of a fine-tuned network, and ``standalone`` the PyTorch files that exports hold.

- Out: ``source`` and ``finetuned`` read a run, ``files`` writes, ``examples`` adds records to
  score, ``card`` describes (``card_data``, ``card_figures``), and ``verify`` compares with JAX.
- In: ``read_tensors`` and ``pytorch_files`` open a file, ``prefixes`` takes wrappers' names off,
  ``import_options`` has what shapes do not tell, ``importing`` writes the folder of a run.
- ``reference`` is VLMo's network in NumPy, with which ``--to=vlmo --verify`` compares.
"""
