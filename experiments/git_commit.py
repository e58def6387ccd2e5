"""The code's git commit."""

import os
import subprocess
from pathlib import Path

# Within a git hook these variables name the repository of the hook.
_HOOK_VARIABLES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX")


def code_commit(file: str = __file__) -> str | None:
    """The checked-out commit, with "-dirty" if files differ from it.

    None without git, and if the repository around `file` does not track it: code installed into a
    virtual environment may lie within an unrelated repository.
    """
    path = Path(file).resolve()
    try:
        _git(path.parent, "ls-files", "--error-unmatch", path.name)
        describe = "describe --always --exclude=* --abbrev=40 --dirty".split()
        return _git(path.parent, *describe) or None
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *command: str) -> str:
    env = {name: value for name, value in os.environ.items() if name not in _HOOK_VARIABLES}
    command = ("git", "-C", str(folder), *command)
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    return result.stdout.strip()
