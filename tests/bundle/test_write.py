"""Writing a bundle: complete or not at all, and never over something else."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from ohlora.bundle import Bundle
from ohlora.bundle import files as bundle_files
from ohlora.bundle.manifest import BundleManifest
from ohlora.bundle.write import new_bundle
from ohlora.errors import BundleError, InvalidInputError, OutputError
from tests.support.small_bundle import GENERATOR, HAIR, ROW, write, write_bundle, write_gallery

pytestmark = pytest.mark.usefixtures("no_cache")


def test_existing_things_are_never_overwritten_by_accident(staging, tmp_path):
    keep = tmp_path / "keep"
    keep.mkdir()
    (keep / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(InvalidInputError, match="exists and is not a bundle"):
            write(keep, staging, overwrite=overwrite)
    a_file = tmp_path / "file"
    a_file.write_text("x")
    with pytest.raises(InvalidInputError, match="exists and is not a bundle"):
        write(a_file, staging, overwrite=True)
    assert (keep / "thesis.txt").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    assert write(tmp_path / "empty", staging).name == "small"


def test_overwrite_replaces_all_of_a_bundle(staging, tmp_path):
    write(tmp_path / "b", staging)
    with pytest.raises(InvalidInputError, match=r"is a bundle already: .* --overwrite to replace it"):
        write(tmp_path / "b", staging)
    smaller = tmp_path / "smaller"
    smaller.mkdir()
    for name in ("hair.onnx", "hair_probe.safetensors"):
        shutil.copy(staging / name, smaller)
    none = {"generator": None, "directions": None, "gallery": None}
    bundle = write_bundle(tmp_path / "b", smaller, overwrite=True, name="b2", hair=HAIR)
    assert bundle.name == "b2"
    assert sorted(p.name for p in bundle.path.iterdir()) == [
        "bundle.json",
        "hair.onnx",
        "hair_probe.safetensors",
    ]
    assert all(getattr(bundle.manifest, role) is None for role in none)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "smaller"]


def test_failed_write_keeps_the_old_bundle(staging, tmp_path, monkeypatch):
    old = write(tmp_path / "b", staging)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with (
        pytest.raises(OutputError, match=r"cannot write .*b: the disk is full"),
        new_bundle(old.path, old, overwrite=True),
    ):
        pass
    assert Bundle.open(tmp_path / "b").identity == old.identity
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_a_bundle_that_a_killed_process_left_aside_is_opened(staging, tmp_path):
    old = write(tmp_path / "b", staging)
    old.path.rename(tmp_path / ".b.ohlora-old-1")
    assert Bundle.open(tmp_path / "b").identity == old.identity
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_invalid_content_is_never_installed(staging, tmp_path):
    bad = Path(shutil.copytree(staging, tmp_path / "bad"))
    write_gallery(bad / "gallery.csv", [ROW])
    with pytest.raises(BundleError, match="has 1 faces, the manifest says 2"):
        write(tmp_path / "out", bad)
    with pytest.raises(BundleError, match=r"uses 'net/none.onnx', which 'files' does not list"):
        write(tmp_path / "out", staging, generator=GENERATOR.model_copy(update={"mapping": "net/none.onnx"}))
    (bad / "card.md").symlink_to(staging / "MODEL_CARD.md")
    with pytest.raises(BundleError, match=r"card.md is a link"):
        write(tmp_path / "out", bad)
    assert [p.name for p in tmp_path.iterdir()] == ["bad"]


def test_a_bundle_may_start_as_a_copy(whole, tmp_path):
    start = Bundle.open(whole)
    with new_bundle(tmp_path / "again", start):
        pass
    again = Bundle.open(tmp_path / "again")
    assert isinstance(again.manifest, BundleManifest)
    assert (again.manifest, again.identity) == (start.manifest, start.identity)
    with new_bundle(tmp_path / "changed", start) as draft:
        draft.name, draft.gallery = "other", None
    assert Bundle.open(tmp_path / "changed").manifest == start.manifest.model_copy(
        update={"name": "other", "gallery": None}
    )


def test_hashes_are_remembered_only_for_settled_files(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"one")
    stamp = path.stat().st_mtime_ns
    assert bundle_files.file_sha256(path) == hashlib.sha256(b"one").hexdigest()
    path.write_bytes(b"two")
    os.utime(path, ns=(stamp, stamp))  # same path, time and size
    assert bundle_files.file_sha256(path) == hashlib.sha256(b"two").hexdigest()
    os.utime(path, ns=(10**18, 10**18))
    bundle_files.file_sha256(path)
    assert (str(path), 10**18, 3) in bundle_files._HASHES
