from __future__ import annotations

import platform

import pytest

from mmcl.engine.allocator import keep_freed_memory


def test_glibc_takes_the_setting() -> None:
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not keep_freed_memory()
