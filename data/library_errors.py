"""Convert errors of libraries that read files into a DataError of one line.

Rust libraries (tokenizers, safetensors) raise PanicException for internal errors. It is not an
Exception, each library has its own class for it, and none can be imported, so it is recognized by
name. Rust's message on stderr ("thread ... panicked at") stays: suppressing it would require
redirecting stderr for all threads.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from data.errors import DataError


@contextmanager
def library_errors(context: str) -> Iterator[None]:
    """Context manager: any failure of a library becomes a DataError that begins with `context`.

    DataError, KeyboardInterrupt, SystemExit and GeneratorExit are raised unchanged.
    """
    try:
        yield
    except DataError:
        raise
    except MemoryError:
        raise DataError(f"{context}: not enough memory") from None
    except BaseException as error:
        if not (isinstance(error, Exception) or _is_panic(error)):
            raise
        raise DataError(f"{context}: {_message(error)}") from None


def _message(error: BaseException) -> str:
    """An exception's message, in one line of at most 300 characters; its class if empty."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _is_panic(error: BaseException) -> bool:
    return type(error).__name__ == "PanicException"
