"""What pydantic says of a value, in plain words."""

from __future__ import annotations

import re

_TYPES = {
    "boolean": "true or false",
    "dictionary": "a mapping",
    "integer": "a whole number",
    "list": "a list",
    "number": "a number",
    "string": "a text",
    "tuple": "a list",
}


def in_plain_words(message: str) -> str:
    """The message without its Python; one that is ours stays as it is."""
    valid = re.match(r"Input should be a valid (\w+)", message)
    if valid and valid[1] in _TYPES:
        return f"must be {_TYPES[valid[1]]}"
    return re.sub(r"^(Input|String|List|Dictionary|Tuple) should", "must", message.removeprefix("Value error, "))
