"""The job loop alone, with executors that write small files."""

from __future__ import annotations

import hashlib
import json
import signal
import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ohlora.base.atomic import atomic_path
from ohlora.errors import EngineError, ImageError, InvalidInputError, OutputError
from ohlora.io.marking import RENDERED, Mark
from ohlora.render.movies import MovieExecutor
from ohlora.render.plan import Output
from ohlora.render.run_items import MAX_OUTPUTS, Advance, Job, JobInterrupted, RunOptions, check_size, execute

COUNT = 6


@dataclass(frozen=True)
class Unit:
    outputs: tuple[Output, ...]


class Movies:
    """A plan of COUNT files, two of each source."""

    mark = RENDERED
    noun, step = "videos", "frames"
    counts: ClassVar[dict[str, str]] = {"frames": "units"}

    def __len__(self) -> int:
        return COUNT

    def steps(self, pending: Sequence[int]) -> int:
        return 10 * len(pending)

    def units(self, pending: Sequence[int]) -> Iterator[Unit]:
        for first in range(0, COUNT, 2):
            outputs = [
                Output(i, f"{first}/{i}.mp4", None, {"source": str(first)}) for i in pending if i // 2 == first // 2
            ]
            if outputs:
                yield Unit(tuple(outputs))


def job(write: Callable[[Unit, list[Path]], None], **request: Any) -> Job:
    """write: besides which every file gets its name as content."""

    def make(
        unit: Unit, paths: list[Path], mark: Mark | None, advance: Advance, finish: Callable[[], None]
    ) -> dict[str, Any]:
        with atomic_path(paths[0]) as temporary:
            temporary.write_text("half")
            write(unit, paths)
            temporary.write_text(paths[0].name)
            finish()
        for path in paths[1:]:
            path.write_text(path.name)
        advance(10)
        return {"frames": 10}

    return Job(Movies(), MovieExecutor(make), {"command": "test", **request}, {"bundle": "b", "engine": "e-fp32"})


def nothing(unit: Unit, paths: list[Path]) -> None: ...


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    kept = (path for path in folder.rglob("*") if path.is_file() and ".ohlora" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in kept}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole")
    summary = execute(job(nothing), out)
    assert (summary.written, summary.resumed, summary.status) == (COUNT, 0, 0)
    assert len(contents(out)) == COUNT + 1
    return contents(out)


def test_a_row_describes_its_file(tmp_path: Path) -> None:
    summary = execute(job(nothing), tmp_path)
    data = b"1.mp4"
    assert rows(tmp_path)[1] == {
        "file_name": "0/1.mp4",
        "source": "0",
        "frames": 10,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "bundle": "b",
        "engine": "e-fp32",
    }
    shown = summary.to_json()
    assert (shown["videos"], shown["written"], shown["frames"], shown["failures"]) == (COUNT, COUNT, 30, [])
    assert shown["frames_per_second"] == pytest.approx(30 / summary.seconds, rel=0.01)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OutputError("the disk is full"), EngineError("device lost")])
def test_a_stopped_job_leaves_partial_metadata_and_resumes(
    tmp_path: Path, uninterrupted: dict[str, bytes], error: BaseException
) -> None:
    def stop(unit: Unit, paths: list[Path]) -> None:
        if unit.outputs[0].item == 4:
            raise error

    said: list[str] = []
    with pytest.raises(type(error)):
        execute(job(stop), tmp_path, RunOptions(say=said.append))
    assert said == ["stopped: 4 of 6 videos are done; the same command resumes"]
    assert [row["file_name"] for row in rows(tmp_path)] == ["0/0.mp4", "0/1.mp4", "2/2.mp4", "2/3.mp4"]
    assert contents(tmp_path).keys() < uninterrupted.keys(), "nothing half-written is left"

    made: list[int] = []
    again = execute(job(lambda unit, paths: made.append(unit.outputs[0].item)), tmp_path, RunOptions(say=said.append))
    assert made == [4], "what was finished is not done again"
    assert (again.written, again.resumed) == (2, 4)
    assert said[1:] == ["resuming: 4 of 6 videos are there"]
    assert contents(tmp_path) == uninterrupted


def test_a_late_interrupt_waits_for_the_record(tmp_path: Path, uninterrupted: dict[str, bytes]) -> None:
    def late(
        unit: Unit, paths: list[Path], mark: Mark | None, advance: Advance, finish: Callable[[], None]
    ) -> dict[str, Any]:
        finish()
        if unit.outputs[0].item == 2:
            signal.raise_signal(signal.SIGINT)
        for path in paths:
            path.write_text(path.name)
        advance(10)
        return {"frames": 10}

    asked = job(nothing)
    with pytest.raises(KeyboardInterrupt):
        execute(Job(asked.plan, MovieExecutor(late), asked.request, asked.provenance), tmp_path)
    assert [row["file_name"] for row in rows(tmp_path)] == ["0/0.mp4", "0/1.mp4", "2/2.mp4", "2/3.mp4"]
    assert execute(asked, tmp_path).resumed == 4
    assert contents(tmp_path) == uninterrupted


def test_a_failed_source_fails_alone(tmp_path: Path, uninterrupted: dict[str, bytes]) -> None:
    def damaged(unit: Unit, paths: list[Path]) -> None:
        if unit.outputs[0].item == 2:
            raise ImageError("clip.mp4 is truncated")

    summary = execute(job(damaged), tmp_path)
    assert (summary.written, summary.status, summary.failures) == (4, 1, ["clip.mp4 is truncated"] * 2)
    assert len(rows(tmp_path)) == 4
    assert summary.to_json()["failed"] == 2
    repaired = execute(job(nothing), tmp_path)
    assert (repaired.written, repaired.resumed, repaired.status) == (2, 4, 0)
    assert contents(tmp_path) == uninterrupted


@pytest.mark.parametrize("place", ["2/2.mp4", "2"])
def test_a_result_whose_place_is_taken_fails_alone(tmp_path: Path, uninterrupted: dict[str, bytes], place: str) -> None:
    if place == "2":
        (tmp_path / place).write_text("a file")
    else:
        (tmp_path / place).mkdir(parents=True)
    summary = execute(job(nothing), tmp_path)
    failed = 2 if place == "2" else 1
    assert (summary.written, summary.status, len(summary.failures)) == (COUNT - failed, 1, failed)
    assert str(tmp_path / place) in summary.failures[0]
    (tmp_path / place).rename(tmp_path / "aside")
    assert execute(job(nothing), tmp_path).written == failed
    (tmp_path / "aside").rmdir() if failed == 1 else (tmp_path / "aside").unlink()
    assert contents(tmp_path) == uninterrupted


def test_files_that_are_gone_are_made_again(tmp_path: Path, uninterrupted: dict[str, bytes]) -> None:
    execute(job(nothing), tmp_path)
    (tmp_path / "2" / "3.mp4").unlink()
    (tmp_path / "2" / ".ohlora-tmp-0123456789ab.mp4").write_text("of a killed run")
    assert (again := execute(job(nothing), tmp_path)).written == 1
    assert again.to_json()["already_there"] == 5
    assert contents(tmp_path) == uninterrupted


def test_an_interrupted_job_says_how_far_it_came(tmp_path: Path) -> None:
    def stop(unit: Unit, paths: list[Path]) -> None:
        if unit.outputs[0].item == 4:
            raise KeyboardInterrupt

    with pytest.raises(JobInterrupted) as stopped:
        execute(job(stop), tmp_path)
    summary = stopped.value.summary
    assert summary.status == 130
    assert summary.to_json().items() >= {"interrupted": True, "videos": COUNT, "written": 4, "failures": []}.items()
    assert execute(job(nothing), tmp_path).to_json()["interrupted"] is False


def test_lines_that_count_for_nothing_are_said(tmp_path: Path, uninterrupted: dict[str, bytes]) -> None:
    execute(job(nothing), tmp_path)
    path = tmp_path / ".ohlora" / "journal.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"file_name": "2/3.mp4"', b'"file_name": "2/2.mp4"'))
    said: list[str] = []
    assert execute(job(nothing), tmp_path, RunOptions(say=said.append)).written == 1
    assert said[0].startswith(f"1 lines in {tmp_path / '.ohlora'} are damaged or not of this job")
    assert contents(tmp_path) == uninterrupted


def test_more_outputs_than_a_folder_holds_are_refused() -> None:
    check_size(MAX_OUTPUTS, "images")
    with pytest.raises(InvalidInputError, match="10,000,000,000,000 images asked for; the limit of one job is"):
        check_size(10**13, "images")


def test_another_request_needs_a_restart(tmp_path: Path) -> None:
    execute(job(nothing), tmp_path)
    with pytest.raises(InvalidInputError, match=r"belongs to another job: quality is not set there and 3 now"):
        execute(job(nothing, quality=3), tmp_path)
    assert execute(job(nothing, quality=3), tmp_path, RunOptions(restart=True)).written == COUNT
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInputError, match="it is a file"):
        execute(job(nothing), tmp_path / "file")


def test_two_processes_never_write_one_folder(tmp_path: Path) -> None:
    inside, go = threading.Event(), threading.Event()

    def wait(unit: Unit, paths: list[Path]) -> None:
        inside.set()
        assert go.wait(30)

    first = threading.Thread(target=execute, args=(job(wait), tmp_path))
    first.start()
    try:
        assert inside.wait(30)
        with pytest.raises(InvalidInputError, match="another ohlora process"):
            execute(job(nothing), tmp_path)
    finally:
        go.set()
        first.join()
    assert len(rows(tmp_path)) == COUNT


def test_a_large_file_is_hashed_in_pieces(tmp_path: Path) -> None:
    size = 200_000_000

    def make(unit: Unit, paths: list[Path], *_: object) -> dict[str, Any]:
        for path in paths:
            with path.open("wb") as file:
                file.truncate(size if unit.outputs[0].item == 0 else 1)
        return {}

    asked = Job(Movies(), MovieExecutor(make), {"command": "test"}, {})
    tracemalloc.start()
    execute(asked, tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6, "the file is never held"
    digest = hashlib.sha256()
    for _ in range(200):
        digest.update(bytes(1_000_000))
    assert rows(tmp_path)[0]["sha256"] == digest.hexdigest()
    assert rows(tmp_path)[0]["bytes"] == size
