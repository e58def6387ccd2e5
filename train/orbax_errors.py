"""Convert errors of Orbax and its threads into one line."""

import errno
import inspect
import logging
import resource
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Iterate over the error and all of its causes, groups included."""
    while error is not None:
        yield error
        for inner in getattr(error, "exceptions", ()):
            yield from _chain(inner)
        error = error.__cause__ or error.__context__


def disk_is_full(error: Exception) -> bool:
    """Whether a full disk caused the error."""
    # TensorStore writes in C++, and reports it only as text.
    return any(
        getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        or "No space left on device" in str(cause)
        for cause in _chain(error)
    )


def _too_many_files(error: BaseException) -> bool:
    return any(
        getattr(cause, "errno", None) in (errno.EMFILE, errno.ENFILE)
        or "Too many open files" in str(cause)
        for cause in _chain(error)
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's message, shortened."""
    if _too_many_files(error):
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return (
            f"too many open files: raise the limit of {limit} (ulimit -n) and run again to resume"
        )
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


def silence_orbax() -> "OrbaxLog":
    """Stop Orbax's threads from printing each failure to stderr; the caller raises it once."""
    logger = logging.getLogger("absl")
    log = next((f for f in logger.filters if isinstance(f, OrbaxLog)), None)
    if log is None:
        logger.addFilter(log := OrbaxLog())
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    # A failed load leaves coroutines that are never awaited, and a closed loop still in use.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    if not isinstance(sys.unraisablehook, _Unraisable):
        sys.unraisablehook = _Unraisable(sys.unraisablehook)
    return log


class OrbaxLog(logging.Filter):
    """A log filter that drops Orbax's records and stores the errors of its threads."""

    def __init__(self):
        super().__init__()
        self.errors: list[BaseException] = []

    def filter(self, record: logging.LogRecord) -> bool:
        if "/orbax/" not in record.pathname:
            return True
        error = record.exc_info and record.exc_info[1]
        if error and record.levelno >= logging.ERROR:
            self.errors.append(error)
        return False


@dataclass(frozen=True)
class _Unraisable:
    """An unraisable hook that drops Orbax's objects and passes all others to `inner`."""

    inner: Callable[[Any], object]

    def __call__(self, unraisable: Any, /) -> None:
        name = getattr(unraisable.object, "__qualname__", "")
        partly_built = name == "BaseEventLoop.__del__"  # it has no files to close
        closed = "loop is closed" in str(unraisable.exc_value)
        if not (partly_built or closed or inspect.iscoroutine(unraisable.object)):
            self.inner(unraisable)
