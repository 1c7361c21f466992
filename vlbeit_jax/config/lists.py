"""Reads the flags of fields that hold lists: ``data/a,data/b``, or a Python tuple."""

import ast
from typing import Any

from ml_collections import config_flags
from ml_collections.config_flags import tuple_parser


class ListParser(tuple_parser.TupleParser):
    """Splits plain text at its commas.

    ml_collections takes Python's notation, and plain text only without commas, so that
    ``data/a,data/b`` is one name to it and ``head/*,words`` an error.
    """

    def parse(self, argument: Any) -> tuple[Any, ...]:
        """Returns the values; see ``TupleParser``."""
        if not isinstance(argument, str) or _is_python(argument):
            return super().parse(argument)
        return tuple(item.strip() for item in argument.split(",") if item.strip())


def _is_python(text: str) -> bool:
    try:
        ast.literal_eval(text)
    except ValueError:
        return False
    except SyntaxError:
        # A bracket or a quote begins a list that is badly written: its error says so.
        return text.lstrip()[:1] in ("(", "[", "'", '"')
    return True


def take_plain_lists() -> None:
    """Makes the flags of configurations take lists in either notation."""
    config_flags.register_flag_parser_for_type(tuple, ListParser())
