"""JAX's compilation cache, and the cache folder of the user."""

import os
from pathlib import Path

import jax

_MAX_BYTES = 2 << 30


def cache_folder(name: str) -> Path | None:
    """The user's cache folder of this name; None for a user without a home folder.

    A relative XDG_CACHE_HOME is ignored, as its specification says. A temporary folder is no
    fallback: compiled programs are loaded from here, and other users could plant theirs there.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not caches.is_absolute():
        try:
            caches = Path.home() / ".cache"
        except RuntimeError:  # no HOME and an unknown user, as in containers
            return None
    return caches / "heed" / name


def enable_compilation_cache() -> None:
    """Point JAX's compilation cache to the user's cache folder, unless JAX is configured otherwise.

    JAX_ENABLE_COMPILATION_CACHE=0 disables it. The least recently used programs are evicted, under
    a lock: several processes may share the cache.
    """
    if jax.config.values["jax_compilation_cache_dir"]:
        return
    folder = cache_folder("compiled")
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # not writable: every start compiles
    if os.access(folder, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_compilation_cache_max_size", _MAX_BYTES)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
