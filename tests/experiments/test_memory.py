"""malloc is tuned on Linux with glibc, unless the environment disables it."""

import ctypes
from types import SimpleNamespace

import pytest

from experiments import malloc


@pytest.mark.parametrize(("platform", "setting", "tuned"), [
    ("linux", None, True), ("linux", "1", True), ("linux", "0", False), ("darwin", None, False),
])  # fmt: skip
def test_malloc_is_tuned_unless_disabled(platform, setting, tuned, monkeypatch):
    options = {}
    library = SimpleNamespace(mallopt=lambda option, value: options.update({option: value}))
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    monkeypatch.setattr(malloc.sys, "platform", platform)
    monkeypatch.delenv("HEED_KEEP_MEMORY", raising=False)
    if setting:
        monkeypatch.setenv("HEED_KEEP_MEMORY", setting)
    malloc.tune_malloc()
    assert (options == {-8: 1, -4: 0, -1: -1}) is tuned and bool(options) is tuned


def test_other_libraries_than_glibc_are_not_tuned(monkeypatch):
    searched = []

    class Library:
        """A C library without mallopt, such as musl."""

        def __getattr__(self, name):
            searched.append(name)
            raise AttributeError(name)

    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library())
    monkeypatch.setattr(malloc.sys, "platform", "linux")
    monkeypatch.delenv("HEED_KEEP_MEMORY", raising=False)
    malloc.tune_malloc()
    assert searched == ["mallopt"]
