"""From records to batches: prepared sets, text, images, masks, Grain. Computes in NumPy alone.

- A prepared set on a disk: ``source`` opens it, ``sources`` those of a stream; ``set_records`` and
  ``strings`` read its records, ``shards`` checks its files, ``content`` is its fingerprint.
  ``records`` has views of records, ``rematch`` gives pairs wrong partners.
- Which record is on which side of a split: ``identity``, ``keys``, ``splits``.
- Which record is which example: ``order`` and ``draws`` define it, ``sampling`` applies it, and
  ``bad_records`` says what happens if a record cannot be used. ``contributions`` counts.
- From a record to a row: ``examples``, one file per kind. For images ``headers``, ``image``,
  ``resize``, ``rand_augment`` and ``erasing``; for texts ``text`` and ``pieces``; for both
  ``masking``; for labels ``class_names``, ``answers`` and ``masks``. ``cached_tokens`` are visual
  tokens that were computed before.
- From rows to batches: ``pipeline``, for this host's ``shard``, in ``loader_process``.
"""
