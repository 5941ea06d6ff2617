"""What strangers wrote is printed as it is: neither as commands of the terminal nor as markup."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from ohlora.bundle import Bundle
from ohlora.cli.report import table
from ohlora.errors import BundleError
from tests.support.command_line import ROOT, status_of

DEMO = ROOT / "ohlora" / "bundle" / "demo"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEMO, tmp_path / "copy"))


def rewrite(bundle: Path, **changes: object) -> None:
    content = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps(content | changes))


def test_a_table_keeps_brackets_and_escapes_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    table([("name", "what"), ("my[bold]b", "[train] \x1b[31mred")])
    shown = capsys.readouterr().out
    assert "my[bold]b" in shown
    assert "[train] \\x1b[31mred" in shown
    assert "\x1b[31m" not in shown


def test_the_description_of_a_bundle_is_no_command(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewrite(copy, description="\x1b]0;title\x07 [red]x")
    assert status_of("bundle", "info", copy) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "[red]x" in shown


def test_names_in_messages_are_no_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("bundle", "info", "./\x1b[31mred") == 2
    shown = capsys.readouterr().err
    assert "\x1b" not in shown
    assert "\\x1b[31mred" in shown


def test_a_manifest_is_a_file_inside_its_bundle(copy: Path) -> None:
    manifest = copy / "bundle.json"
    manifest.rename(copy.parent / "elsewhere.json")
    manifest.symlink_to(copy.parent / "elsewhere.json")
    with pytest.raises(BundleError, match="a link out of its folder"):
        Bundle.open(copy)
    manifest.unlink()
    os.mkfifo(manifest)
    with pytest.raises(BundleError, match="a pipe or a device"):
        Bundle.open(copy)


@pytest.mark.parametrize("key", ["label_size", "z_size", "w_size", "resolution", "num_layers"])
def test_a_manifest_claims_no_sizes_that_take_the_memory(copy: Path, key: str) -> None:
    generator = json.loads((copy / "bundle.json").read_text())["generator"]
    rewrite(copy, generator=generator | {key: 2**63})
    with pytest.raises(BundleError, match=f"generator.{key}: Input should be less than or equal to 65536"):
        Bundle.open(copy)


def test_the_option_whose_file_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "missing.json"
    assert status_of("bundle", "build", "--metrics", missing, "--out", tmp_path / "b") == 2
    assert f"there is no file of --metrics {missing}" in capsys.readouterr().err
    missing.write_text("[]")
    assert status_of("bundle", "build", "--metrics", missing, "--out", tmp_path / "b") == 2
    assert "holds a list, not a JSON object" in capsys.readouterr().err


def test_a_job_file_may_begin_with_a_byte_order_mark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = tmp_path / "job.json"
    job.write_bytes(b"\xef\xbb\xbf" + b'{"faces": ["5-3"]}')
    assert status_of("render", "--job", job, "--out", tmp_path / "out") == 2
    assert "seed range '5-3' must rise" in capsys.readouterr().err
    job.unlink()
    os.mkfifo(job)
    assert status_of("render", "--job", job, "--out", tmp_path / "out") == 2
    assert "a pipe or a device" in capsys.readouterr().err
