"""One case: a file is corrupt, its folder is read, and that must end well or in one line."""

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

MISTAKES = (ConfigError, DataError, InputError, CheckpointError)  # a user's


class Outcome(NamedTuple):
    """What became of a case; `failure` is None unless it ended in another way than it may."""

    accepted: bool
    failure: str | None
    seconds: float


def corrupt(name: str, whole: bytes, seed: int, number: int) -> bytes:
    """The content of a format's case of this number."""
    random = Random(f"{seed} {name} {number}")
    damage = FORMATS[name].damage if random.randrange(3) else some_bytes
    return damage(random, whole)


def outcome(form: Format, folder: Path, content: bytes) -> Outcome:
    """What becomes of a folder whose file has this content."""
    file = folder / form.file
    file.unlink(missing_ok=True)
    file.write_bytes(content)
    began = time.perf_counter()
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
    except BaseException as error:  # of any kind: that is what is looked for
        failure = f"{type(error).__name__}: {str(error)[:300]!r}"
    return Outcome(accepted, failure, time.perf_counter() - began)
