"""Convert errors of libraries that read files into a DataError of one line.

Rust libraries (tokenizers, safetensors) end in a PanicException where they meet a fault of their
own. It is no Exception, each library has a class of its own for it, and none can be imported: it is
known by its name. What Rust writes to stderr about it ("thread ... panicked at") cannot be
kept from there without taking stderr away from all threads, so it stays.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from data.errors import DataError


@contextmanager
def library_errors(what: str) -> Iterator[None]:
    """Raises DataError, which begins with `what`, for any failure of a library within it.

    A DataError stays as it is, and so do KeyboardInterrupt, SystemExit and GeneratorExit.
    """
    try:
        yield
    except DataError:
        raise
    except MemoryError:
        raise DataError(f"{what}: there is not enough memory for it") from None
    except BaseException as error:
        if not (isinstance(error, Exception) or _is_panic(error)):
            raise
        raise DataError(f"{what}: {_message(error)}") from None


def _message(error: BaseException) -> str:
    """What an exception says, in one line of at most 300 characters; its class, if nothing."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def _is_panic(error: BaseException) -> bool:
    return type(error).__name__ == "PanicException"
