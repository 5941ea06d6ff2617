"""A job that is killed, or meets a full disk, resumes to exactly the files of one that ran through."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import pytest

from ohlora.base.atomic import write_bytes
from ohlora.errors import InvalidInputError, OutputError
from ohlora.render import journal as module
from ohlora.render.journal import Journal

ROOT = Path(__file__).resolve().parents[2]
REQUEST = {"seeds": [0, 1, 2], "output": {"format": "png", "quality": 95}, "bundle": "demo"}


def row(item: int) -> dict[str, object]:
    return {"file_name": f"{item:04d}.bin", "bytes": item + 1, "z": 0.1 * item, "name": "오로라", "a": None}


def produce(folder: Path, item: int) -> dict[str, object]:
    write_bytes(folder / f"{item:04d}.bin", b"x" * (item + 1))
    return row(item)


def lines(folder: Path) -> list[bytes]:
    return (folder / ".ohlora" / "journal.jsonl").read_bytes().splitlines()


def metadata(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text("utf-8").splitlines()]


def test_a_new_folder_records_the_request_and_each_item(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "out"
    with Journal.open(folder, REQUEST) as journal:
        assert journal.folder == folder
        assert len(journal.finished) == 0
        assert list(journal.pending(3)) == [0, 1, 2]
        journal.record(2, row(2))
        journal.record_failure(1, "no face: skipped")
        assert lines(folder)[0].startswith(b'{"item": 2, "row": {"file_name": ')  # there before close
        assert dict(journal.finished) == {2: row(2)}
        assert journal.failed == {1: "no face: skipped"}
        assert 2 in journal.finished
        assert 1 not in journal.finished
        with pytest.raises(KeyError):
            journal.finished[1]
    job = json.loads((folder / ".ohlora" / "job.json").read_text())
    assert job["request"] == REQUEST
    assert len(job["sha256"]) == 64


def test_resuming_knows_what_is_finished_and_retries_what_failed(tmp_path: Path) -> None:
    with Journal.open(tmp_path, REQUEST) as journal:
        journal.record(0, produce(tmp_path, 0))
        journal.record_failure(1, "disk error")
        journal.record(3, produce(tmp_path, 3))
    reordered = dict(reversed(REQUEST.items()))
    with Journal.open(tmp_path, reordered) as journal:  # the order of keys is no difference
        assert list(journal.finished) == [0, 3]
        assert journal.failed == {1: "disk error"}
        assert list(journal.pending(4)) == [1, 2]
        journal.record(1, produce(tmp_path, 1))
        assert journal.failed == {}
        journal.record_failure(3, "went bad")
        assert list(journal.finished) == [0, 1]
    with Journal.open(tmp_path, REQUEST) as journal:
        assert list(journal.finished) == [0, 1]
        assert journal.failed == {3: "went bad"}


def test_the_last_record_of_an_item_wins(tmp_path: Path) -> None:
    with Journal.open(tmp_path, REQUEST) as journal:
        for size in (1, 2, 3):
            journal.record(5, {"bytes": size})
        assert journal.finished[5] == {"bytes": 3}
    with Journal.open(tmp_path, REQUEST) as journal:
        assert journal.finished[5] == {"bytes": 3}
        assert len(journal.finished) == 1


def test_metadata_are_in_item_order_with_the_keys_as_given(tmp_path: Path) -> None:
    order = list(range(20))
    random.Random(1).shuffle(order)
    with Journal.open(tmp_path, REQUEST) as journal:
        for item in order:
            journal.record(item, row(item))
        assert journal.finish(20) == tmp_path / "metadata.jsonl"
    assert metadata(tmp_path) == [row(item) for item in range(20)]
    first = (tmp_path / "metadata.jsonl").read_text("utf-8").splitlines()[0]
    assert first == '{"file_name": "0000.bin", "bytes": 1, "z": 0.0, "name": "오로라", "a": null}'


def test_finish_refuses_gaps_unless_partial_and_leaves_failures_out(tmp_path: Path) -> None:
    with Journal.open(tmp_path, REQUEST) as journal:
        journal.record(0, row(0))
        journal.record_failure(1, "bad")
        with pytest.raises(OutputError, match=r"2 of 4 outputs in .* missing, the first is item 2: .* it resumes"):
            journal.finish(4)
        assert not (tmp_path / "metadata.jsonl").exists()
        journal.finish()
        assert metadata(tmp_path) == [row(0)]
        journal.record(2, row(2))
        journal.finish(3)
        assert metadata(tmp_path) == [row(0), row(2)]


@pytest.mark.parametrize("cut", [1, 5, 20, 40])
def test_a_torn_last_line_is_dropped_and_cut_off(tmp_path: Path, cut: int) -> None:
    with Journal.open(tmp_path, REQUEST) as journal:
        for item in range(3):
            journal.record(item, produce(tmp_path, item))
    path = tmp_path / ".ohlora" / "journal.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    with Journal.open(tmp_path, REQUEST) as journal:
        assert list(journal.finished) == [0, 1]
        assert list(journal.pending(3)) == [2]
        journal.record(2, row(2))
        assert dict(journal.finished) == {item: row(item) for item in range(3)}
    assert path.read_bytes() == whole  # nothing of the torn line is left


@pytest.mark.parametrize(
    "damage",
    [
        b"\0" * 30,
        b'{"item": 1, "row"',
        b"[]",
        b'{"item": true, "row": {}}',
        b'{"item": -1, "row": {}}',
        b'{"item": 1}',
        b"\xff\xfe{",
        b"",
        b"[" * 100_000,
    ],
)
def test_damaged_middle_lines_cost_their_item_only(tmp_path: Path, damage: bytes) -> None:
    with Journal.open(tmp_path, REQUEST) as journal:
        for item in range(3):
            journal.record(item, produce(tmp_path, item))
    before = lines(tmp_path)
    before[1] = damage
    (tmp_path / ".ohlora" / "journal.jsonl").write_bytes(b"\n".join(before) + b"\n")
    with Journal.open(tmp_path, REQUEST) as journal:
        assert list(journal.pending(3)) == [1]
        journal.record(1, row(1))
        journal.finish(3)
    assert metadata(tmp_path) == [row(item) for item in range(3)]


def test_another_request_is_refused_with_the_differences(tmp_path: Path) -> None:
    with Journal.open(tmp_path, REQUEST) as journal:
        journal.record(0, row(0))
    other = {"seeds": [0, 1, 7], "output": {"format": "jpeg", "quality": 95}, "bundle": "demo", "eyes": 1.5}
    with pytest.raises(InvalidInputError) as caught:
        Journal.open(tmp_path, other)
    message = str(caught.value)
    assert f"{tmp_path} belongs to another job" in message
    assert "eyes is not set there and 1.5 now" in message
    assert 'output.format is "png" there and "jpeg" now' in message
    assert "seeds[2] is 2 there and 7 now" in message
    assert "--out" in message
    assert "--restart" in message
    with Journal.open(tmp_path, REQUEST) as journal:  # and the first job is unharmed
        assert list(journal.finished) == [0]


def test_many_and_long_differences_stay_readable(tmp_path: Path) -> None:
    Journal.open(tmp_path, {f"k{i}": "v" * 500 for i in range(9)}).close()
    with pytest.raises(InvalidInputError) as caught:
        Journal.open(tmp_path, {f"k{i}": "w" * 500 for i in range(9)})
    assert "and 6 more" in str(caught.value)
    assert len(str(caught.value)) < 900


def test_a_folder_of_a_version_before_has_other_engine_labels(tmp_path: Path) -> None:
    # Of `render --faces 0-2 --color 0.5` at commit 806cbcc.
    job = (
        '{"format":1,"sha256":"f6c7dcc9827e7dfbbcee3f850d52bff916f7dab421f3b80093366fb88534398c","request":{"bundle":'
        '"demo","bundle_sha256":"c15dd289f4793c1af8638146ef3be99cdd35c2925d61d372b76354410bee6626","command":"render",'
        '"directions":"0e53271e42c25c03536264a880169906f2128abcb7a44152fe9ce63452d21109","engine":"openvino-f32",'
        '"faces":["seeds 0-2"],"looks":[{"expression":{"eyes":0.0,"mouth":0.0,"pose":0.0},"ombre":{"color":0.5,'
        '"grad_height":0.5,"height":0.7}}],"output":{"format":"jpeg","quality":95,"rounding":"truncate"},'
        '"truncation":[1.0,0]}}\n'
    )
    record = tmp_path / ".ohlora"
    record.mkdir()
    (record / "job.json").write_text(job)
    (record / "journal.jsonl").write_text('{"item": 0, "row": {"file_name": "a", "engine": "openvino-f32"}}\n')
    request = json.loads(job)["request"]
    with Journal.open(tmp_path, {**request, "engine": "openvino-fp32"}) as journal:
        journal.record(1, {"file_name": "b", "engine": "openvino-fp32"})
        journal.finish(2)
    assert [list(entry.items()) for entry in metadata(tmp_path)] == [
        [("file_name", "a"), ("engine", "openvino-fp32")],
        [("file_name", "b"), ("engine", "openvino-fp32")],
    ]
    with pytest.raises(InvalidInputError, match='engine is "openvino-fp32" there and "openvino-bf16" now'):
        Journal.open(tmp_path, {**request, "engine": "openvino-bf16"})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("onnxruntime-int8+f16", "onnxruntime-int8+fp16"),
        ("torch-f16 on cuda", "torch-fp16 on cuda"),
        ("tensorrt-f16-f32ab16cde01 on cuda", "tensorrt-fp16-f32ab16cde01 on cuda"),
        ("torch-bf16", "torch-bf16"),
        ("onnxruntime-fp32", "onnxruntime-fp32"),
    ],
)
def test_labels_of_all_engines_are_renamed(tmp_path: Path, old: str, new: str) -> None:
    with Journal.open(tmp_path, {}) as journal:
        journal.record(0, {"engine": old})
        assert journal.finished[0] == {"engine": new}


def test_restart_takes_the_folder_over(tmp_path: Path) -> None:
    with Journal.open(tmp_path, REQUEST) as journal:
        journal.record(0, produce(tmp_path, 0))
        journal.finish(1)
    with Journal.open(tmp_path, {"other": 1}, restart=True) as journal:
        assert len(journal.finished) == 0
        assert not (tmp_path / "metadata.jsonl").exists()
        assert (tmp_path / "0000.bin").exists()
    with pytest.raises(InvalidInputError, match="belongs to another job"):
        Journal.open(tmp_path, REQUEST)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b'{"format": 1, "request": {}, "sha256": "0"}', b'{"format": 9}']
)
def test_a_damaged_job_record_needs_a_decision(tmp_path: Path, content: bytes) -> None:
    Journal.open(tmp_path, REQUEST).close()
    (tmp_path / ".ohlora" / "job.json").write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"job\.json is damaged or of another version: .*--restart"):
        Journal.open(tmp_path, REQUEST)
    Journal.open(tmp_path, REQUEST, restart=True).close()
    Journal.open(tmp_path, REQUEST).close()


def test_a_journal_without_its_job_record_is_not_believed(tmp_path: Path) -> None:
    with Journal.open(tmp_path, REQUEST) as journal:
        journal.record(0, row(0))
    (tmp_path / ".ohlora" / "job.json").unlink()
    with Journal.open(tmp_path, {"other": 1}) as journal:
        assert len(journal.finished) == 0


def test_outputs_that_are_gone_or_changed_are_made_again(tmp_path: Path) -> None:
    with Journal.open(tmp_path, REQUEST) as journal:
        for item in range(5):
            journal.record(item, produce(tmp_path, item))
    (tmp_path / "0001.bin").unlink()
    (tmp_path / "0002.bin").write_bytes(b"")  # what a power failure may leave
    (tmp_path / "0003.bin").unlink()
    (tmp_path / "0003.bin").mkdir()
    with Journal.open(tmp_path, REQUEST) as journal:
        assert list(journal.pending(5)) == [1, 2, 3]
        assert list(journal.finished) == [0, 4]
        journal.finish()
    assert [entry["file_name"] for entry in metadata(tmp_path)] == ["0000.bin", "0004.bin"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"file_name": None},
        {"file_name": ""},
        {"bytes": "1"},
        {"file_name": "../0000.bin"},
        {"file_name": "a\0"},
    ],
)
def test_rows_that_name_no_file_of_the_folder_do_not_verify(tmp_path: Path, wrong: dict[str, object]) -> None:
    folder = tmp_path / "out"
    write_bytes(tmp_path / "0000.bin", b"x")
    with Journal.open(folder, REQUEST) as journal:
        good = produce(folder, 0)
        assert journal.verify(good)
        assert not journal.verify({**good, **wrong})
        assert not journal.verify({**good, "file_name": str(folder / "0000.bin")})


def test_leftovers_of_a_killed_run_are_removed_on_resume(tmp_path: Path) -> None:
    Journal.open(tmp_path, REQUEST).close()
    (tmp_path / ".ohlora-tmp-0123456789ab.png").touch()
    (tmp_path / ".ohlora" / ".ohlora-tmp-0123456789ab.json").touch()
    Journal.open(tmp_path, REQUEST).close()
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        ".ohlora",
        "job.json",
        "journal.jsonl",
        "lock",
    ]


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with Journal.open(tmp_path, REQUEST) as journal:
        for restart in (False, True):
            with pytest.raises(
                InvalidInputError, match=rf"another ohlora process \(process {os.getpid()}\) is writing to"
            ):
                Journal.open(tmp_path, REQUEST, restart=restart)
        journal.record(0, row(0))  # unharmed by the attempts
    with Journal.open(tmp_path, REQUEST) as journal:
        assert list(journal.finished) == [0]


def test_a_refused_request_gives_the_lock_back(tmp_path: Path) -> None:
    Journal.open(tmp_path, REQUEST).close()
    with pytest.raises(InvalidInputError, match="belongs to another job"):
        Journal.open(tmp_path, {})
    Journal.open(tmp_path, REQUEST).close()


def test_a_file_system_without_locks_is_used_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("ohlora.base.atomic.fcntl.flock", unsupported)
    Journal.open(tmp_path, REQUEST).close()
    assert "cannot be locked (No locks available)" in caplog.text


# The child renders 150 small outputs, two threads at a time, and says when it is under way.
CHILD = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tests.render.test_journal import produce, Journal
folder, pause = Path(sys.argv[1]), float(sys.argv[2])
with Journal.open(folder, {"job": 1}) as journal:
    todo = list(journal.pending(150))
    print(len(todo), flush=True)
    def work(item):
        journal.record(item, produce(folder, item))
        threading.Event().wait(pause)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, todo))
    journal.finish(150)
"""


def tree(folder: Path) -> dict[str, bytes]:
    outside = (path for path in folder.rglob("*") if path.is_file() and ".ohlora" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in outside}


def test_a_job_killed_again_and_again_ends_as_if_it_had_run_through(tmp_path: Path) -> None:
    def start(folder: Path, pause: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", CHILD, str(folder), str(pause)]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    plain = start(tmp_path / "plain", 0)
    assert plain.communicate()[0] == "150\n"
    assert plain.returncode == 0

    killed = tmp_path / "killed"
    left = []
    for delay in (0.05, 0.1, 0.0):
        child = start(killed, 0.004)
        assert child.stdout is not None
        left.append(int(child.stdout.readline()))
        time.sleep(delay)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
    last = start(killed, 0)
    left.append(int(last.communicate()[0]))
    assert last.returncode == 0
    assert left[0] == 150
    assert left == sorted(left, reverse=True)
    assert left[-1] < 150  # what was recorded before a kill was not done again
    assert tree(killed) == tree(tmp_path / "plain")
    assert len(tree(killed)) == 151


def test_a_kill_in_the_middle_of_a_line_costs_that_item_only(tmp_path: Path) -> None:
    script = """
import os, signal, sys
from pathlib import Path
from tests.render.test_journal import produce, Journal, module
folder = Path(sys.argv[1])
journal = Journal.open(folder, {"job": 1})
journal.record(0, produce(folder, 0))
write = os.write
def half(file, data):
    write(file, bytes(data)[: len(data) // 2])
    os.kill(os.getpid(), signal.SIGKILL)
module.os.write = half
journal.record(1, produce(folder, 1))
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(lines(tmp_path)) == 2
    with Journal.open(tmp_path, {"job": 1}) as journal:
        assert list(journal.pending(2)) == [1]
    assert len(lines(tmp_path)) == 1


def test_a_full_disk_in_the_middle_of_a_line_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    calls = []

    def filling(file: int, data: memoryview) -> int:
        calls.append(len(data))
        if len(calls) == 1:
            return real(file, data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    with Journal.open(tmp_path, REQUEST) as journal:
        journal.record(0, row(0))
        monkeypatch.setattr(module.os, "write", filling)
        with pytest.raises(OutputError, match=r"disk is full: free some space .* it resumes"):
            journal.record(1, row(1))
        monkeypatch.undo()
        assert calls[1] == calls[0] - 10
        assert len(lines(tmp_path)) == 1
        assert list(journal.finished) == [0]
        journal.record(2, row(2))  # there is space again
        journal.finish()
    assert metadata(tmp_path) == [row(0), row(2)]


def test_a_journal_that_cannot_be_mended_takes_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with Journal.open(tmp_path, REQUEST) as journal:
        journal.record(0, row(0))
        monkeypatch.setattr(module.os, "write", fail)
        monkeypatch.setattr(module.os, "ftruncate", fail)
        for _ in range(2):
            with pytest.raises(OutputError, match="Input/output error"):
                journal.record(1, row(1))
            monkeypatch.undo()
    with Journal.open(tmp_path, REQUEST) as journal:
        assert list(journal.finished) == [0]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_really_full_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Journal.open(tmp_path, REQUEST) as journal:
        journal.record(0, row(0))
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, journal._file)
        os.close(full)
        with pytest.raises(OutputError, match="the disk is full"):
            journal.record(1, row(1))
        monkeypatch.setattr(module.os, "fsync", lambda file: None)  # a device file has nothing to sync
    with Journal.open(tmp_path, REQUEST) as journal:
        assert list(journal.finished) == [0]


@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_a_full_disk_at_the_end_keeps_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Journal.open(tmp_path, REQUEST) as journal:
        journal.record(0, row(0))
        # Path.replace keeps a reference of its own to os.replace on Python 3.10.
        monkeypatch.setattr({"replace": Path, "fsync": module.os}[step], step, full)
        with pytest.raises(OutputError, match="the disk is full"):
            journal.finish(1)
        monkeypatch.undo()
    assert not (tmp_path / "metadata.jsonl").exists()
    with Journal.open(tmp_path, REQUEST) as journal:
        journal.finish(1)
    assert metadata(tmp_path) == [row(0)]


def test_a_folder_that_cannot_be_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="it is a file"):
        Journal.open(tmp_path / "file", REQUEST)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".ohlora").touch()
    with pytest.raises(OutputError, match=r"\.ohlora as output folder: it is a file"):
        Journal.open(tmp_path / "out", REQUEST)


def test_threads_may_record_and_read_together(tmp_path: Path) -> None:
    errors: list[BaseException] = []

    def write(journal: Journal, start: int) -> None:
        try:
            for item in range(start, 1200, 4):
                journal.record(item, row(item))
                assert journal.finished[item] == row(item)
        except BaseException as error:
            errors.append(error)

    with Journal.open(tmp_path, REQUEST) as journal:
        threads = [threading.Thread(target=write, args=(journal, start)) for start in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        journal.finish(1200)
    assert errors == []
    assert metadata(tmp_path) == [row(item) for item in range(1200)]


def test_records_reach_the_disk_every_second_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, clock = [], [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(module.os, "fsync", synced.append)
    journal = Journal.open(tmp_path, REQUEST)
    for item in range(30):
        clock[0] = item / 10
        journal.record(item, row(item))
    assert len(synced) == 2
    journal.close()
    assert len(synced) == 3
    journal.close()
    with pytest.raises(ValueError, match="is closed"):
        journal.record(0, row(0))


def test_fifty_thousand_rows_stay_small_in_memory(tmp_path: Path) -> None:
    Journal.open(tmp_path, REQUEST).close()
    filler = "x" * 500
    with (tmp_path / ".ohlora" / "journal.jsonl").open("w") as file:
        for item in range(50_000):
            file.write(f'{{"item": {item}, "row": {{"file_name": "{item}.jpg", "bytes": 1, "note": "{filler}"}}}}\n')
    tracemalloc.start()
    with Journal.open(tmp_path, REQUEST) as journal:
        assert len(journal.finished) == 50_000
        assert journal.finished[49_999]["file_name"] == "49999.jpg"
        journal.finish(50_000)
        peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 15e6  # the rows themselves are 28 MB of text
    assert len(metadata(tmp_path)) == 50_000


def test_values_that_json_lacks_are_refused_and_leave_no_line(tmp_path: Path) -> None:
    with Journal.open(tmp_path, REQUEST) as journal:
        for bad, kind in ((float("nan"), ValueError), (Path("x"), TypeError)):
            with pytest.raises(kind):
                journal.record(0, {"value": bad})
        for item in (-1, True, 1.0):
            with pytest.raises(ValueError, match="an item is numbered"):
                journal.record(item, {})
        assert lines(tmp_path) == []
        journal.record(0, {"file_name": "caf\udce9.png"})  # bytes of another encoding, as Python names them
        assert journal.finished[0] == {"file_name": "caf\udce9.png"}
        journal.finish(1)
    assert metadata(tmp_path) == [{"file_name": "caf\udce9.png"}]


def flipped(line: bytes, found: bytes, by: bytes) -> bytes:
    assert line.count(found) == 1
    return line.replace(found, by)


def test_a_flipped_digit_costs_its_item_only(tmp_path: Path) -> None:
    with Journal.open(tmp_path, REQUEST) as journal:
        for item in range(3):
            journal.record(item, produce(tmp_path, item))
    changed = lines(tmp_path)
    changed[1] = flipped(changed[1], b'"z": 0.1', b'"z": 0.3')
    (tmp_path / ".ohlora" / "journal.jsonl").write_bytes(b"\n".join(changed) + b"\n")
    with Journal.open(tmp_path, REQUEST) as journal:
        assert journal.drop_foreign(3) == 1
        assert list(journal.pending(3)) == [1]


@pytest.mark.parametrize("at", range(-30, 0))
def test_any_flipped_byte_at_the_end_of_a_line_is_noticed(tmp_path: Path, at: int) -> None:
    with Journal.open(tmp_path, REQUEST) as journal:
        journal.record(0, produce(tmp_path, 0))
    (line,) = lines(tmp_path)
    changed = bytearray(line)
    changed[at] ^= 1
    (tmp_path / ".ohlora" / "journal.jsonl").write_bytes(bytes(changed) + b"\n")
    with Journal.open(tmp_path, REQUEST) as journal:
        assert list(journal.pending(1)) == [0]


def test_lines_of_versions_before_have_no_check(tmp_path: Path) -> None:
    with Journal.open(tmp_path, REQUEST) as journal:
        for item in range(3):
            journal.record(item, produce(tmp_path, item))
        journal.record_failure(3, 'it said ", "check": "01234567"}')
    old = [line[: line.rindex(b', "check"')] + b"}" for line in lines(tmp_path)]
    assert old[0] == json.dumps({"item": 0, "row": row(0)}, ensure_ascii=False).encode()
    (tmp_path / ".ohlora" / "journal.jsonl").write_bytes(b"\n".join(old) + b"\n")
    with Journal.open(tmp_path, REQUEST) as journal:
        assert journal.drop_foreign(4) == 0
        assert list(journal.pending(4)) == [3]
        assert journal.failed == {3: 'it said ", "check": "01234567"}'}


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "", 7, None])
def test_rows_that_are_not_of_the_job_are_dropped(tmp_path: Path, name: object) -> None:
    with Journal.open(tmp_path, REQUEST) as journal:
        journal.record(0, produce(tmp_path, 0))
        journal.record(1, {**row(1), "file_name": name})
        journal.record(7, produce(tmp_path, 7))
        journal.record_failure(8, "of a longer job")
    with Journal.open(tmp_path, REQUEST) as journal:
        assert journal.drop_foreign(2) == 3
        assert (list(journal.pending(2)), journal.failed) == ([1], {})
        journal.record(1, produce(tmp_path, 1))
        journal.finish(2)
    assert metadata(tmp_path) == [row(0), row(1)]


@pytest.mark.parametrize("name", ["lock", "journal.jsonl", "job.json"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_stands_in_the_place_of_a_record_is_left_alone(tmp_path: Path, name: str, kind: str) -> None:
    target, out = tmp_path / "precious", tmp_path / "out"
    target.write_text("precious")
    Journal.open(out, REQUEST).close()
    place = out / ".ohlora" / name
    place.unlink()
    {"link": lambda: place.symlink_to(target), "pipe": lambda: os.mkfifo(place), "folder": place.mkdir}[kind]()
    with pytest.raises((InvalidInputError, OutputError), match=f"cannot .*{name}"):
        Journal.open(out, REQUEST)
    assert target.read_text() == "precious"


def test_a_record_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".ohlora").symlink_to("../elsewhere")
    with pytest.raises(OutputError, match="a link stands in its place"):
        Journal.open(tmp_path / "out", REQUEST)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_what_is_left_of_a_huge_job_takes_no_memory(tmp_path: Path) -> None:
    with Journal.open(tmp_path, REQUEST) as journal:
        journal.record(1, produce(tmp_path, 1))
        tracemalloc.start()
        pending = journal.pending(10**12)
        first = [item for item, _ in zip(pending, range(3), strict=False)]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (len(pending), first) == (10**12 - 1, [0, 2, 3])
        assert (1 in pending, 2 in pending, 10**12 in pending) == (False, True, False)
    assert peak < 1e6
