"""Parse JSON from files and requests into typed values; every error becomes a one-line DataError.

Types are those of msgspec: builtins, `Annotated` bounds (`msgspec.Meta`), `msgspec.Struct` objects.
"""

import os
import re
from typing import Any, TypeVar

import msgspec

from data.errors import DataError
from data.regular_file import MAX_SETTINGS_BYTES, read_regular

T = TypeVar("T")
_REQUIRED: Any = object()


def decode_json(data: bytes | str, kind: type[T], context: str) -> T:
    """Decode the JSON document `data` as a `kind`. Raises DataError, which begins with `context`.

    It rejects malformed JSON, encodings other than UTF-8, unpaired surrogates, numbers out of their
    type's range, and nesting beyond the interpreter's recursion limit.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise _validation_error(error, context) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        reason = f"{error}"
        text = data if isinstance(data, bytes) else data.encode(errors="replace")
        if "truncated" in reason and re.search(rb"\\u[dD][89a-fA-F]", text):
            reason = r"an unpaired surrogate, such as \ud800, is not a character"
        raise DataError(f"{context} is not JSON: {reason}") from None
    except RecursionError:
        raise DataError(f"{context} is not JSON: nested too deeply") from None


def convert(value: Any, kind: type[T], context: str, strict: bool = True) -> T:
    """Convert a value of builtins to a `kind`; unless `strict`, also from text. Raises DataError.

    Numeric keys may be given as text, as in JSON.
    """
    try:
        return msgspec.convert(value, kind, strict=strict, str_keys=True)
    except msgspec.ValidationError as error:
        raise _validation_error(error, context) from None
    except RecursionError:
        raise DataError(f"{context} is nested too deeply") from None


def read_json(
    path: str | os.PathLike,
    kind: type[T],
    default: T = _REQUIRED,
    max_bytes: int = MAX_SETTINGS_BYTES,
) -> T:
    """Read the JSON document in a regular file as a `kind`; `default` if there is no file.

    Raises DataError, which names the file and the field.
    """
    if default is not _REQUIRED and not os.path.lexists(path):
        return default
    return decode_json(read_regular(path, max_bytes), kind, str(path))


def _validation_error(error: msgspec.ValidationError, context: str) -> DataError:
    """Reword msgspec's "Expected `int`, got `str` - at `$.d_model`": the field comes first."""
    reason, _, path = str(error).partition(" - at ")
    field = path.replace("`", "").removeprefix("key in ").removeprefix("$.").removeprefix("$")
    reason = reason.replace("`", "")
    reason = reason[:1].lower() + reason[1:]
    if missing := re.fullmatch(r"object missing required field (.*)", reason):
        field, reason = ".".join(filter(None, (field, missing[1]))), "it is missing"
    return DataError(f"{context}: {field}: {reason}" if field else f"{context}: {reason}")
