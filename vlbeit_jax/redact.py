"""Leaves secrets out of what is saved and shown: passwords and tokens in addresses.

A setting or a message may hold the address of a data set, with the user's password or a signature
in it. Everything that is written to the folder of a run, or shown, goes through here.
"""

import re
from typing import Any

HIDDEN = "***"
# scheme://user:password@host, or scheme://token@host.
_USER = re.compile(r"(?P<scheme>\b[A-Za-z][A-Za-z0-9+.-]*://)[^\s/@'\"]+@")
# The words of a name after which a secret stands, as in ?X-Goog-Signature=... or api_key=....
_NAMES = "token|secret|password|passwd|signature|sig|credential|api[_-]?key|access[_-]?key"
_VALUE = re.compile(
    rf"(?P<name>(?<![A-Za-z0-9])(?:[A-Za-z0-9]+[_-])*(?:{_NAMES})(?:[_-]?id)?)=(?P<value>[^\s&;,'\"]+)",
    re.IGNORECASE,
)
# Tokens that are known by how they begin: of Hugging Face, GitHub, AWS and Google.
_TOKEN = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|AKIA[A-Z0-9]{16}|ya29\.[\w-]{20,})"
)


def redacted(value: Any) -> Any:
    """Returns JSON values with the secrets in their strings replaced by ``HIDDEN``."""
    if isinstance(value, str):
        value = _USER.sub(rf"\g<scheme>{HIDDEN}@", value)
        value = _VALUE.sub(rf"\g<name>={HIDDEN}", value)
        return _TOKEN.sub(HIDDEN, value)
    if isinstance(value, dict):
        return {key: redacted(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(each) for each in value]
    return value
