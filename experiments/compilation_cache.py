"""Caches on disk: compiled programs and tokenized text."""

import os
from pathlib import Path

import jax

_MOST_BYTES = 2 << 30


def cache_folder(name: str) -> Path | None:
    """The user's folder for what Heed keeps under this name; None for a user without a home.

    A relative XDG_CACHE_HOME is ignored, as its specification says. A temporary folder is no
    substitute: programs are read from here, and there others could put theirs.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not caches.is_absolute():
        try:
            caches = Path.home() / ".cache"
        except RuntimeError:  # no HOME, and a user that the system does not know: a container
            return None
    return caches / "heed" / name


def enable_compilation_cache() -> None:
    """Set JAX's compilation cache to the user's cache folder, unless JAX's own settings name one.

    JAX_ENABLE_COMPILATION_CACHE=0 turns it off. The least recently used programs make room for new
    ones, under a lock: several processes may share it.
    """
    if jax.config.values["jax_compilation_cache_dir"]:
        return
    folder = cache_folder("compiled")
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # nowhere to write: every start compiles
    if os.access(folder, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_compilation_cache_max_size", _MOST_BYTES)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
