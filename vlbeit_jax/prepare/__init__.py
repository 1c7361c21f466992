"""Making data sets and text tokenizers.

A set is made in three steps; ``build`` is the way through them:

1. Plan: ``inputs`` lists the files, ``planning`` divides them into parts, and ``work_plan`` is the
   plan as a file. ``formats`` reads them, one file a format, and yields an ``item`` for each
   record.
2. Parts: ``work`` writes each part once, in this process, in several (``pool``) or on other
   machines (``beam``). ``write_part`` does one: ``records`` makes records of items, after
   ``check``, ``repair``, ``strict``, ``fitting``, ``labels`` and ``pictures`` have looked at them;
   ``encoding`` makes bytes of records; ``parts`` is what is left of a part. ``crashed`` remembers
   inputs that ended a process.
3. Finish: ``finish`` takes all parts together (``merge``, ``counts``). ``decide`` says which
   records stay, by ``apart`` (no picture and no text on both sides of a split), ``held_apart`` (the
   same in a published benchmark), ``held_out`` (small sets) and ``duplicates``. ``divide`` says
   which records each file gets, ``final`` writes the files, and ``set_files`` and ``describe`` what
   is beside them.

``writer`` writes a set at once, from records in memory. ``text_tokenizer`` trains a tokenizer;
``encode_texts`` and ``pack`` make rows of word pieces with it. ``requests`` reads records to
predict for, and ``submissions`` writes files for the servers of benchmarks.
"""
