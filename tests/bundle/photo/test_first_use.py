"""`--bundle photo` installs it, once, where that is allowed."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from ohlora.bundle import Bundle
from ohlora.bundle.photo import install
from ohlora.bundle.photo.first_use import open_bundle
from ohlora.errors import BundleError


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names that were to be installed; the demo bundle is given for each."""
    names: list[str] = []

    def get(name: str) -> install.Installation:
        names.append(name)
        return install.Installation(Bundle.open("demo"), 0, 0.0, done=True)

    monkeypatch.setenv("OHLORA_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("OHLORA_OFFLINE", raising=False)
    monkeypatch.setattr(install, "get_photo", get)
    return names


def test_installs_what_is_not_here_with_one_line(asked: list[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="ohlora"):
        assert open_bundle("photo-256").name == "demo"
    assert asked == ["photo-256"]
    assert len(caplog.records) == 1
    line = caplog.records[0].getMessage()
    assert "'photo-256'" in line
    assert "37.6 MB" in line
    assert "not settled" in line
    assert "\n" not in line


def test_others_are_opened_as_ever(asked: list[str], tmp_path: Path) -> None:
    assert open_bundle("demo").name == "demo"
    for name in (tmp_path / "photo", str(tmp_path / "photo"), "photo-2"):
        with pytest.raises(BundleError):
            open_bundle(name)
    assert asked == []


def test_offline_it_is_an_error(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OHLORA_OFFLINE", "1")
    with pytest.raises(BundleError, match="no bundle 'photo'"):
        open_bundle("photo")
    assert asked == []
