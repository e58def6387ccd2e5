"""One fuzz case: corrupt a file and read its folder, which must succeed or fail in one line."""

import time
from pathlib import Path
from random import Random
from typing import NamedTuple

from data.errors import DataError
from decode.options import InputError
from model import ConfigError
from tests.fuzz.formats import FORMATS, Format
from tests.fuzz.mutations import some_bytes
from train.checkpoint_spec import CheckpointError

MISTAKES = (ConfigError, DataError, InputError, CheckpointError)  # errors caused by the user


class Outcome(NamedTuple):
    """The result of a case; `failure` is None if it was accepted or rejected in one line."""

    accepted: bool
    failure: str | None
    seconds: float


def corrupt(name: str, intact: bytes, seed: int, number: int) -> bytes:
    """The file content of fuzz case `number` of a format."""
    random = Random(f"{seed} {name} {number}")
    mutate = FORMATS[name].mutate if random.randrange(3) else some_bytes
    return mutate(random, intact)


def outcome(form: Format, folder: Path, content: bytes) -> Outcome:
    """Reads a folder after writing `content` to its file."""
    file = folder / form.file
    file.unlink(missing_ok=True)
    file.write_bytes(content)
    start = time.perf_counter()
    accepted, failure = False, None
    try:
        form.read(folder)
        accepted = True
    except MISTAKES as error:
        if len(str(error).splitlines()) != 1:
            failure = f"not one line: {str(error)[:300]!r}"
        elif len(str(error)) > 2000:
            failure = f"a line of {len(str(error))} characters: {str(error)[:300]!r}"
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # any other exception is a bug
        failure = f"{type(error).__name__}: {str(error)[:300]!r}"
    return Outcome(accepted, failure, time.perf_counter() - start)
