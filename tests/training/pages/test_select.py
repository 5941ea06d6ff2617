"""Choosing faces: decisions survive everything, the tables are what other parts read."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from ohlora.bundle.gallery import read_gallery
from ohlora.cli import app
from ohlora.errors import InvalidInputError, OutputError
from ohlora.faces import load_faces
from ohlora.training.pages.select import store as store_module
from ohlora.training.pages.select.report import read_report
from ohlora.training.pages.select.store import SelectionStore
from tests.support.select_runs import GRADIENT, GROUPS, MIXED, TABLES, V8, kept, make_run, written


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def opened(run: Path, *, everybody: bool = False, **options: Any) -> SelectionStore:
    report = read_report(run)
    return SelectionStore(report, report.ordered("case", everybody), run / "selected", **options)


# --- report ----------------------------------------------------------------------------------------------------------


def test_orders_and_filter(tmp_path: Path) -> None:
    report = read_report(make_run(tmp_path / "run", (*V8, "eyes_leakage", "pose_leakage")))
    assert report.ordered() == [0, 2, 4, 6]
    assert report.ordered("case", everybody=True) == list(range(8))
    assert report.ordered("sum") == [2, 4, 0, 6]
    assert report.ordered("leakage") == [0, 6, 2, 4]
    assert report.leakage == ("eyes_leakage", "pose_leakage")
    with pytest.raises(InvalidInputError, match="unknown order 'name': choose one of case, sum, leakage"):
        report.ordered("name")
    plain = read_report(make_run(tmp_path / "plain"))
    with pytest.raises(InvalidInputError, match="has no leakage columns"):
        plain.ordered("leakage")


def test_nobody_passed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    path = run / "image_generation_report" / "test_result.csv"
    path.write_text(path.read_text().replace(",O,", ",X,"))
    with pytest.raises(InvalidInputError, match=r"none of the 8 cases of .* passed the test: --all shows them"):
        read_report(run).ordered()


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("vectorfind.json", '"w"', '"v"', "the space must be one of z, w, mapping_split1, mapping_split2, got 'v'"),
        ("vectorfind.json", "{", "", "is not valid JSON"),
        ("image_generation_report/test_result.csv", "eyes_corr", "eyes", "no report of a direction test"),
        ("image_generation_report/test_result.csv", "\n3,0,X", "\n2,0,X", "has case 2 twice"),
        ("image_generation_report/test_result.csv", "\n3,0,X", "\n3,0,Y", "line 5: passed must be O or X, got 'Y'"),
        ("image_generation_report/test_result.csv", "\n3,0,X", "\n-3,0,X", "line 5: the case must be a whole number"),
        ("image_generation_report/test_result.csv", "\n3,0,X", "\n3,0,X,1", "line 5: 9 cells, the header has 8"),
        ("image_generation_report/latent_codes_all.csv", "0,1,2", "z0,1,2", "must have the header 0 ... 511"),
        ("image_generation_report/latent_codes_all.csv", "\n", "\nnan,", "line 2: expected 519 finite numbers"),
        ("image_generation_report/latent_codes_all.csv", "\n", "\nx,", "line 2: could not convert"),
    ],
)
def test_wrong_runs_are_refused(run: Path, file: str, old: str, new: str, message: str) -> None:
    text = (run / file).read_text()
    assert old in text
    (run / file).write_text(text.replace(old, new, 1))
    with pytest.raises(InvalidInputError, match=message):
        read_report(run)


def test_missing_parts_are_told(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="there is no run folder"):
        read_report(tmp_path / "nowhere")
    with pytest.raises(InvalidInputError, match=r"there is no table .*other/test_result\.csv"):
        read_report(run, tmp_path / "other")
    codes = run / "image_generation_report" / "latent_codes_all.csv"
    codes.write_text("\n".join(codes.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(InvalidInputError, match=r"8 rows in test_result\.csv and 7 in latent_codes_all\.csv"):
        read_report(run)
    (run / "vectorfind.json").unlink()
    with pytest.raises(InvalidInputError, match=r"is no run of `ohlora train vectorfind`: it has no vectorfind\.json"):
        read_report(run)


def test_names_of_the_run(run: Path) -> None:
    (run / "vectorfind.json").write_text('{"space": "w", "names": {"2": "Mina", "99": "nobody"}}')
    assert [read_report(run).cases[number].name for number in (0, 2)] == ["case0000", "Mina"]
    (run / "vectorfind.json").write_text('{"space": "w", "names": {"2": "a/b"}}')
    with pytest.raises(InvalidInputError, match="the name 'a/b' of case 2 cannot be used"):
        read_report(run)
    (run / "vectorfind.json").write_text('{"space": "w", "names": {"2": "CASE0003"}}')
    with pytest.raises(InvalidInputError, match="cases 2 and 3 are both named 'case0003'"):
        read_report(run)


# --- store and tables ------------------------------------------------------------------------------------------------


def test_tables_are_those_that_other_parts_read(run: Path) -> None:
    with opened(run) as store:
        assert written(run) == ["selection.json"]
        store.decide("a", 1, 6, "keep")
        store.decide("a", 2, 0, "drop")
        store.decide("a", 3, 2, "keep")
        store.rename("a", 4, 6, " Mina Lee ")
        assert store.summary() == {
            "out": str(run / "selected"),
            "cases": 4,
            "dropped": 1,
            "open": 1,
            "kept": [2, 6],
        }
    assert written(run) == [*TABLES, "selection.json"]
    report = run / "image_generation_report"
    codes = (report / "latent_codes_all.csv").read_text().splitlines()
    rows = (report / "test_result.csv").read_text().splitlines()
    out = run / "selected"
    assert (out / "ohlora_z_vectors.csv").read_text().splitlines() == [codes[0], codes[3], codes[7]]
    assert (out / "ohlora_w_group_names.csv").read_text().splitlines() == [rows[0], rows[3], rows[7]]
    faces = load_faces([str(out / "ohlora_z_vectors.csv")], 7)
    assert [(face.name, face.group) for face in faces] == [("case0002", "lll"), ("case0006", "hhl")]
    gallery = read_gallery(out / "gallery.csv", 512, 7, GROUPS)
    assert [(face.name, face.group) for face in gallery] == [("case0002", "lll"), ("Mina Lee", "hhl")]
    for face, entry in zip(faces, gallery, strict=True):
        np.testing.assert_array_equal(face.z, entry.z)
        np.testing.assert_array_equal(face.label, entry.label)


@pytest.mark.parametrize(
    ("columns", "space", "labels", "group", "names", "groups"),
    [
        (V8, "z", 3, None, ["case0000", "case0004"], ["hhl", "lhh"]),
        (MIXED, "mapping_split1", 7, None, ["case0000", "case0004"], ["hhl", "lhh"]),
        (GRADIENT, "mapping_split2", 7, None, ["case0000", "case0004"], [None, None]),
        (V8, "w", 0, "all", ["case0000", "case0004"], ["all", "all"]),
    ],
)
def test_every_kind_of_run(
    tmp_path: Path,
    columns: tuple[str, ...],
    space: str,
    labels: int,
    group: str | None,
    names: list[str],
    groups: list[str | None],
) -> None:
    run = make_run(tmp_path / "run", columns, space=space, labels=labels, group=group)
    with opened(run) as store:
        store.choose([0, 4])
    out = run / "selected"
    rows = (out / f"ohlora_{space}_group_names.csv").read_text().splitlines()
    assert rows[0] == ",".join(columns)
    faces = load_faces([str(out / "ohlora_z_vectors.csv")], labels)
    assert [face.name for face in faces] == names
    assert [face.group for face in faces] == groups
    # One group for all is none in a gallery: such faces take the directions of any bundle with one group.
    gallery = read_gallery(out / "gallery.csv", 512, labels, None)
    assert [face.group for face in gallery] == [None if one == "all" else one for one in groups]


def test_documented_columns_come_first(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", ("pose_leakage", "passed_rechecked", *reversed(V8)))
    with opened(run) as store:
        store.choose([2])
    header, row = (run / "selected" / "ohlora_w_group_names.csv").read_text().splitlines()
    assert header == ",".join([*V8, "pose_leakage", "passed_rechecked"])
    assert row == "2,0,O,lll,-0.92,-0.93,-0.91,2.76,0.03,0.03"


def test_nobody_kept_means_no_tables(run: Path) -> None:
    with opened(run) as store:
        store.decide("a", 1, 2, "keep")
        store.decide("a", 2, 2, "drop")
        assert written(run) == ["selection.json"]


def test_decisions_are_gone_on_with(run: Path) -> None:
    with opened(run) as store:
        store.decide("a", 1, 2, "keep")
        store.rename("a", 2, 4, "Aria")
    with opened(run) as store:
        assert store.state()["rows"] == {2: {"decision": "keep"}, 4: {"name": "Aria"}}
        store.decide("a", 1, 4, "keep")
    # A process killed after the tables and before selection.json: the decision was not acknowledged.
    (run / "selected" / "gallery.csv").unlink()
    (run / "selected" / "ohlora_z_vectors.csv").write_text("half of another")
    with opened(run) as store:
        assert written(run) == [*TABLES, "selection.json"]
        assert len(load_faces([str(run / "selected" / "ohlora_z_vectors.csv")], 7)) == 2
    with opened(run, restart=True) as store:
        assert store.state()["rows"] == {}
        assert written(run) == ["selection.json"]


def test_cases_that_are_not_shown_keep_their_decision(run: Path) -> None:
    with opened(run, everybody=True) as store:
        store.decide("a", 1, 3, "keep")
    with opened(run) as store:
        with pytest.raises(InvalidInputError, match="case 3 did not pass the test: choose with --all"):
            store.decide("a", 1, 3, "drop")
        store.decide("a", 2, 0, "keep")
    assert kept(run) == [0, 3]


def test_undo_takes_back_ones_own_decisions_only(run: Path) -> None:
    with opened(run) as store:
        store.decide("a", 1, 0, "drop")
        store.decide("a", 2, 0, "keep")
        store.rename("a", 3, 0, "Mina")
        store.decide("b", 1, 2, "keep")
        undone = [store.undo("a") for _ in range(4)]
        assert [change and (change.number, change.attribute, change.value) for change in undone] == [
            (0, "name", None),
            (0, "decision", "drop"),
            (0, "decision", None),
            None,
        ]
        assert kept(run) == [2]
        store.decide("a", 5, 4, "keep")
        store.decide("b", 2, 4, "drop")
        assert store.undo("a") is None


def test_a_name_that_was_taken_meanwhile_does_not_block_undo(run: Path) -> None:
    with opened(run) as store:
        store.decide("a", 1, 2, "keep")
        store.rename("a", 2, 0, "Mina")
        store.rename("a", 3, 0, None)
        store.rename("b", 1, 4, "Mina")
        with pytest.raises(InvalidInputError, match="the name 'Mina' is that of case 4"):
            store.undo("a")
        change = store.undo("a")
        assert change is not None
        assert (change.number, change.attribute) == (2, "decision")


def test_tabs_share_decisions(run: Path) -> None:
    with opened(run) as store:
        first = store.decide("a", 1, 0, "keep", seen=0)
        assert store.decide("b", 1, 0, "drop", seen=0).foreign
        assert not store.decide("a", 2, 0, "keep", seen=store.revision).foreign
        store.decide("c", 9, 2, "keep")
        assert store.decide("c", 8, 2, "drop").value == "keep"  # sent earlier, arrived later
        cells = store.changes(first.revision)["cells"]
        assert [(cell["number"], cell["value"]) for cell in cells] == [(0, "keep"), (2, "keep")]


def test_many_threads_lose_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", cases=24)
    with opened(run) as store:

        def work(client: int) -> None:
            for order, number in enumerate(range(2 * client, 24, 6)):
                store.decide(f"tab{client}", order, number, "keep" if number % 4 else "drop")

        threads = [threading.Thread(target=work, args=(client,)) for client in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.summary()["open"] == 0
    with opened(run) as store:
        assert store.summary()["kept"] == kept(run) == [2, 6, 10, 14, 18, 22]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a/b", "the name 'a/b' cannot be used"),
        ("x" * 101, "cannot be used"),
        ("-x", "cannot be used"),
        (7, "a name is a text or null, got 7"),
        ("case0003", "the name 'case0003' is that of case 3"),
        ("mina", "the name 'mina' is that of case 2"),
    ],
)
def test_names_that_a_gallery_cannot_have(run: Path, name: Any, message: str) -> None:
    with opened(run) as store:
        store.rename("a", 1, 2, "Mina")
        with pytest.raises(InvalidInputError, match=message):
            store.rename("a", 2, 0, name)
        store.rename("a", 3, 0, "민아")
        assert store.rename("a", 4, 0, "case0000").value is None  # its own


def test_bad_decisions_are_refused(run: Path) -> None:
    with opened(run) as store:
        for number in (99, "0", True, None):
            with pytest.raises(InvalidInputError, match="has no case"):
                store.decide("a", 1, number, "keep")  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError, match="a decision is keep, drop or null, got 1"):
            store.decide("a", 1, 0, 1)  # type: ignore[arg-type]
        assert store.state()["rows"] == {}
    with pytest.raises(OutputError, match="the selection has ended"):
        store.decide("a", 1, 0, "keep")


def test_one_process_a_folder(run: Path) -> None:
    with opened(run), pytest.raises(InvalidInputError, match=r"another ohlora process .*: use its page"):
        opened(run)


@pytest.mark.parametrize("failing", ["write_json", "write_tables"])
def test_a_full_disk_changes_nothing(run: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    with opened(run) as store:
        store.decide("a", 1, 0, "keep")
        before = {path.name: path.read_bytes() for path in (run / "selected").glob("[!.]*")}
        true, calls = getattr(store_module, failing), []

        def full(*arguments: Any, **options: Any) -> None:
            calls.append(arguments)
            if len(calls) == 1:  # what is written back fits again
                raise OutputError("the disk is full")
            true(*arguments, **options)

        monkeypatch.setattr(store_module, failing, full)
        with pytest.raises(OutputError):
            store.decide("a", 2, 2, "keep")
        assert store.state()["rows"] == {0: {"decision": "keep"}}
        assert store.changes(1)["cells"] == []
        assert {path.name: path.read_bytes() for path in (run / "selected").glob("[!.]*")} == before
        store.decide("a", 3, 2, "keep")
    assert kept(run) == [0, 2]


def test_selections_of_other_reports_are_refused(run: Path, tmp_path: Path) -> None:
    with opened(run) as store:
        store.decide("a", 1, 0, "keep")
    other = read_report(make_run(tmp_path / "other", seed=1))
    with pytest.raises(
        InvalidInputError, match=r"selection from another report .*1 of its faces are others here: case 0"
    ):
        SelectionStore(other, other.ordered(), run / "selected")
    settings = run / "vectorfind.json"
    settings.write_text(settings.read_text().replace('"w"', '"z"'))
    with pytest.raises(InvalidInputError, match="space 'w'"):
        opened(run)
    with opened(run, restart=True) as store:
        store.decide("a", 1, 0, "keep")
    assert written(run) == ["gallery.csv", "ohlora_z_group_names.csv", "ohlora_z_vectors.csv", "selection.json"]


@pytest.mark.parametrize(
    ("old", "new"),
    [('"format": 1', '"format": 2'), ("{", "", ), ('"keep"', '"maybe"'), ('"Mina"', '"a/b"'), ('"code"', '"kode"')],
)  # fmt: skip
def test_damaged_selections_are_refused(run: Path, old: str, new: str) -> None:
    with opened(run) as store:
        store.decide("a", 1, 0, "keep")
        store.rename("a", 2, 0, "Mina")
    path = run / "selected" / "selection.json"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InvalidInputError, match=r"selection\.json(:| is not valid JSON).*--restart"):
        opened(run)
    with opened(run, restart=True):
        pass


def test_tables_of_others_are_not_overwritten(run: Path) -> None:
    (run / "selected").mkdir()
    (run / "selected" / "ohlora_z_vectors.csv").write_text("published")
    with pytest.raises(
        InvalidInputError, match=r"was not made by `ohlora train select` \(no selection\.json beside it\)"
    ):
        opened(run, restart=True)
    assert (run / "selected" / "ohlora_z_vectors.csv").read_text() == "published"


# --- the command without a page ---------------------------------------------------------------------------------------


def test_keep_writes_the_files_without_a_page(run: Path) -> None:
    runner = CliRunner()
    first = runner.invoke(app, ["train", "select", str(run), "--keep", "6, 2,2"])
    assert (first.exit_code, first.output) == (0, f"2 faces kept, 2 dropped -> {run / 'selected'}\n")
    assert kept(run) == [2, 6]
    before = {path.name: path.read_bytes() for path in (run / "selected").iterdir()}
    again = runner.invoke(app, ["train", "select", str(run), "--keep", "2,6", "--json"])
    assert json.loads(again.output) == {
        "out": str(run / "selected"), "cases": 4, "dropped": 2, "open": 0, "kept": [2, 6],
    }  # fmt: skip
    assert {path.name: path.read_bytes() for path in (run / "selected").iterdir()} == before
    other = runner.invoke(app, ["train", "select", str(run), "--keep", "0"])
    assert isinstance(other.exception, InvalidInputError)
    assert "keeps other faces already (2, 6): choose another --out, or --restart" in str(other.exception)
    assert kept(run) == [2, 6]
    runner.invoke(app, ["train", "select", str(run), "--keep", "0", "--restart"])
    assert kept(run) == [0]
    for numbers, message in (
        ("3", "case 3 did not pass the test: choose with --all"),
        ("2,400", "has no case 400"),
        ("2,x", "--keep takes case numbers such as 12,40,77, got 'x'"),
        (",", "--keep takes case numbers"),
    ):
        refused = runner.invoke(app, ["train", "select", str(run), "--keep", numbers, "--out", str(run / "new")])
        assert isinstance(refused.exception, InvalidInputError)
        assert message in str(refused.exception)
    assert runner.invoke(app, ["train", "select", str(run), "--keep", "3", "--all", "--restart"]).exit_code == 0
    assert kept(run) == [3]


def test_another_report_of_the_run(run: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "second", seed=3) / "image_generation_report"
    report = read_report(run, other)
    assert (report.folder, report.grids) == (other, run / "grids")
    (other / "grids").mkdir()
    assert read_report(run, other).grids == other / "grids"
