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
    """The error and all that it was raised from, groups included."""
    while error is not None:
        yield error
        for inner in getattr(error, "exceptions", ()):
            yield from _chain(inner)
        error = error.__cause__ or error.__context__


def disk_is_full(error: Exception) -> bool:
    """Whether that is what the error comes from."""
    # TensorStore writes in C++, and says so in words only.
    return any(
        getattr(each, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        or "No space left on device" in str(each)
        for each in _chain(error)
    )


def _too_many_files(error: BaseException) -> bool:
    return any(
        getattr(each, "errno", None) in (errno.EMFILE, errno.ENFILE)
        or "Too many open files" in str(each)
        for each in _chain(error)
    )


def first_line(error: BaseException) -> str:
    """What the error says, briefly."""
    if _too_many_files(error):
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        return f"too many open files: raise the limit of {most} (ulimit -n) and run again to resume"
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


def silence_orbax() -> None:
    """Orbax tells each failure on stderr, from each of its threads; we raise it, once."""
    logger = logging.getLogger("absl")
    if _not_orbax not in logger.filters:
        logger.addFilter(_not_orbax)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    # A failed load leaves coroutines that nobody awaits and an event loop that others still call.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    if not isinstance(sys.unraisablehook, _Unraisable):
        sys.unraisablehook = _Unraisable(sys.unraisablehook)


def _not_orbax(record: logging.LogRecord) -> bool:
    return "/orbax/" not in record.pathname


@dataclass(frozen=True)
class _Unraisable:
    """A hook, and the one that hears of what it leaves."""

    inner: Callable[[Any], object]

    def __call__(self, unraisable: Any, /) -> None:
        name = getattr(unraisable.object, "__qualname__", "")
        half_made = name == "BaseEventLoop.__del__"  # without the files that it would close
        closed = "loop is closed" in str(unraisable.exc_value)
        if not (half_made or closed or inspect.iscoroutine(unraisable.object)):
            self.inner(unraisable)
