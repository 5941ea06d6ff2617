"""A process per device: shares, rows to the parent's record, errors and stops. The devices here are the host."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the train extra (onnx) makes the models these tests run")

from ohlora.base.values import Z_SIZE, Face
from ohlora.bundle import Bundle
from ohlora.errors import OhloraError, OutputError
from ohlora.render.gpu.devices import DeviceSetting
from ohlora.render.gpu.processes import DeviceExecutor, cut
from ohlora.render.job import Look, OutputFormat, RenderJob
from ohlora.render.pipeline import Results
from ohlora.render.plan import PortraitPlan
from ohlora.render.renderer import Renderer
from ohlora.render.sinks import FolderSink
from tests.support import small_bundle
from tests.support.small_models import LABEL


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    staging = small_bundle.stage(tmp_path_factory.mktemp("staging"), Z_SIZE)
    generator = small_bundle.GENERATOR.model_copy(update={"z_size": Z_SIZE, "w_size": Z_SIZE})
    return small_bundle.write(tmp_path_factory.mktemp("made") / "bundle", staging, generator=generator)


class Noted:
    def __init__(self, interrupt_at: int = -1) -> None:
        self.rows: dict[int, dict[str, Any]] = {}
        self.failed: dict[int, str] = {}
        self._interrupt_at = interrupt_at

    def record(self, item: int, row: dict[str, Any]) -> None:
        self.rows[item] = row
        if len(self.rows) == self._interrupt_at:
            raise KeyboardInterrupt

    def record_failure(self, item: int, message: str) -> None:
        self.failed[item] = message


def render(
    bundle: Bundle, out: Path, count: int, devices: int, record: Noted, advance: Any = lambda count: None
) -> Results:
    """`count` faces, a share to each of `devices` processes on the host; one is this process."""
    rng = np.random.default_rng(2)
    z = rng.standard_normal((count, Z_SIZE)).astype(np.float32)
    label = rng.standard_normal((count, LABEL)).astype(np.float32)
    faces = [Face(*row, name=f"f{i}") for i, row in enumerate(zip(z, label, strict=True))]
    job = RenderJob(faces, (Look(),), OutputFormat("png"))
    with Renderer(bundle) as renderer:
        executor = DeviceExecutor(renderer, job, [None] * devices, DeviceSetting())
        sink = FolderSink(out, job.output, {"engine": "test"})
        results = Results(record, advance)
        executor.run(PortraitPlan(job), range(count), sink, results, devices)
        return results


def test_shares_keep_faces_together() -> None:
    shares = cut([0, 1, 2, 3, 4, 5, 9, 10, 11], looks=3, parts=2)
    assert shares == [[0, 1, 2, 3, 4, 5], [9, 10, 11]]
    assert cut([], 3, 2) == [[], []]
    assert cut([4], 1, 3) == [[4], [], []]
    assert [len(share) for share in cut(range(100), 1, 3)] == [34, 34, 32]


def test_two_processes_render_what_one_does(bundle: Bundle, tmp_path: Path) -> None:
    alone, shared = Noted(), Noted()
    render(bundle, tmp_path / "one", 7, 1, alone)
    advanced: list[int] = []
    totals = render(bundle, tmp_path / "two", 7, 2, shared, advanced.append)
    assert (totals.written, totals.units, sum(advanced)) == (7, 7, 7)
    assert shared.rows == alone.rows, "rows with the hashes of their files"
    assert sorted(path.name for path in (tmp_path / "two").glob("*.png")) == [f"f{i}.png" for i in range(7)]


def test_a_place_that_is_taken_fails_its_item_alone(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "out" / "f4.png").mkdir(parents=True)  # cannot be replaced by a file
    noted = Noted()
    totals = render(bundle, tmp_path / "out", 6, 2, noted)
    assert (totals.written, sorted(totals.failed)) == (5, [4])
    assert sorted(noted.rows) == [0, 1, 2, 3, 5]
    assert "f4.png: a folder stands there" in noted.failed[4]
    assert all((tmp_path / "out" / row["file_name"]).is_file() for row in noted.rows.values())


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that takes no files even from root")
def test_an_error_of_a_process_ends_the_job(bundle: Bundle) -> None:
    noted = Noted()
    with pytest.raises(OutputError, match="/proc/self"):
        render(bundle, Path("/proc/self/none"), 6, 2, noted)
    assert not noted.rows
    assert not noted.failed


def test_interrupted_processes_finish_what_they_began(bundle: Bundle, tmp_path: Path) -> None:
    noted = Noted(interrupt_at=3)
    with pytest.raises(KeyboardInterrupt):
        render(bundle, tmp_path / "out", 400, 2, noted)
    written = {path.name for path in (tmp_path / "out").glob("f*.png")}
    assert written == {row["file_name"] for row in noted.rows.values()}, "every file has its row"
    assert len(written) < 400


def test_a_process_that_is_killed_is_missed(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import multiprocessing

    noted = Noted()
    record = noted.record

    def kill_one(item: int, row: dict[str, Any]) -> None:
        record(item, row)
        children = multiprocessing.active_children()
        if len(noted.rows) == 3 and children:
            assert children[0].pid is not None
            os.kill(children[0].pid, signal.SIGKILL)

    monkeypatch.setattr(noted, "record", kill_one)
    with pytest.raises(OhloraError, match=r"ended without a word .*: the same command resumes"):
        render(bundle, tmp_path / "out", 4000, 2, noted)
