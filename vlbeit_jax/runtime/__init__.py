"""The loop, its logs, and evaluation of what it leaves.

A run: ``start`` goes from a configuration to the first step, ``steps`` takes all steps in the
``loop``, and ``hooks`` are what happens around them (``hooks_of_run`` lists them).

- Before the first step: ``run`` is everything that is opened and checked (``identity``,
  ``shared_memory``); ``run_folder`` locks the folder; ``resume`` finds the newest good step, or
  ``new_state`` makes the first one; ``missing_evaluation`` makes up for what the last start owes.
- Several processes: ``cluster`` and ``rendezvous`` find them; ``hosts`` and ``agreement`` let them
  agree; ``fails_together`` ends them together. ``jax_internals`` is what JAX has no public name
  for.
- When something happens: ``signals`` and ``stopping``, ``watchdog`` and ``outside_watch``,
  ``rollback``, ``bad_data``, ``ending``.
- What is written and said: ``writer`` with ``lines``, ``first_lines``, ``metrics_file``;
  ``history``, ``contributions``, ``records``, ``run_page``; ``sheet``, ``lettering`` and ``drawn``
  draw pictures.
- Time and machine: ``timer``, ``speed``, ``input_rate``, ``synthetic``, ``health``, ``devices``,
  ``device_checks``, ``machine``, ``versions``, ``cpu_memory``, ``compilation_cache``.
- After a run: ``pretrained`` and ``finetuned`` evaluate it; ``features`` encodes with it.
"""
