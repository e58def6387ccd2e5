"""Freed memory is kept where glibc's malloc is, unless the environment says not to."""

import ctypes
from types import SimpleNamespace

import pytest

from experiments import malloc


@pytest.mark.parametrize(("platform", "said", "kept"), [
    ("linux", None, True), ("linux", "1", True), ("linux", "0", False), ("darwin", None, False),
])  # fmt: skip
def test_malloc_is_told_unless_the_environment_says_not_to(platform, said, kept, monkeypatch):
    told = {}
    library = SimpleNamespace(mallopt=lambda option, value: told.update({option: value}))
    monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
    monkeypatch.setattr(malloc.sys, "platform", platform)
    monkeypatch.delenv("HEED_KEEP_MEMORY", raising=False)
    if said:
        monkeypatch.setenv("HEED_KEEP_MEMORY", said)
    malloc.tune_malloc()
    assert (told == {-8: 1, -4: 0, -1: -1}) is kept and bool(told) is kept


def test_another_library_than_glibc_is_left_alone(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    monkeypatch.setattr(malloc.sys, "platform", "linux")
    malloc.tune_malloc()
