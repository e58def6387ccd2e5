"""The code's git commit."""

import os
import subprocess
from pathlib import Path

# Within a git hook these name the repository that the hook is of.
_OF_A_HOOK = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX")


def commit_of_the_code(file: str = __file__) -> str | None:
    """The commit that is checked out, "-dirty" where files differ from it.

    None without git, and where the repository around `file` does not track it: code installed into
    a virtual environment lies within whatever repository that environment is in.
    """
    path = Path(file).resolve()
    try:
        _git(path.parent, "ls-files", "--error-unmatch", path.name)
        describe = "describe --always --exclude=* --abbrev=40 --dirty".split()
        return _git(path.parent, *describe) or None
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *command: str) -> str:
    env = {name: value for name, value in os.environ.items() if name not in _OF_A_HOOK}
    command = ("git", "-C", str(folder), *command)
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    return done.stdout.strip()
