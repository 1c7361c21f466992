"""The report: what a person looks at to judge a run.

``page`` puts it together, in ``markup`` and ``style``. The task's part (``content``) is one of
``pretraining``, ``tokenizer`` and ``fine_tuned``; every page has ``data``, ``facts`` and
``configuration``. ``inspection`` is the page about data before a run.

- Figures and what they mean: ``masked_results``, ``judged``, ``figures`` and ``codebook``, by
  ``verdicts`` and ``words``; ``panels`` draws them.
- Examples: ``samples`` are the model's answers; ``examples``, ``answers``, ``attention`` and
  ``rows`` show them.
- Data: ``measures`` looks at records, ``data_figures`` and ``data_warnings`` show what it found.
"""
