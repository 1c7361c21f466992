"""Commands of the installed package, such as ``vlbeit-train``.

Each runs a module as ``python -m`` does. setup.py reads the list, so this file imports nothing of
the package.
"""

import pathlib
import runpy
import sys

COMMANDS = {
    "vlbeit-prepare": "vlbeit_jax.prepare",
    "vlbeit-text-tokenizer": "vlbeit_jax.text_tokenizer",
    "vlbeit-inspect-data": "vlbeit_jax.inspect_data",
    "vlbeit-train": "vlbeit_jax.main",
    "vlbeit-keep-tokens": "vlbeit_jax.keep_tokens",
    "vlbeit-visual-tokens": "vlbeit_jax.visual_tokens",
    "vlbeit-evaluate": "vlbeit_jax.evaluate",
    "vlbeit-predict": "vlbeit_jax.predict",
    "vlbeit-report": "vlbeit_jax.report",
    "vlbeit-inspect": "vlbeit_jax.inspect",
    "vlbeit-convert": "vlbeit_jax.convert",
    "vlbeit-compile": "vlbeit_jax.compile",
    "vlbeit-benchmark": "vlbeit_jax.benchmark",
    "vlbeit-benchmark-input": "vlbeit_jax.benchmark_input",
    "vlbeit-shared-memory": "vlbeit_jax.shared_memory",
    "vlbeit-doctor": "vlbeit_jax.doctor",
}


def run() -> None:
    """Runs the module whose command this process was started as."""
    name = pathlib.Path(sys.argv[0]).name.removesuffix(".exe")
    # As __main__: the module then parses its flags, and loader processes find it again.
    runpy.run_module(COMMANDS[name], run_name="__main__", alter_sys=True)
