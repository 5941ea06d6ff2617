from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohlora.base.values import Expression, Ombre
from ohlora.errors import InvalidInputError
from ohlora.faces import SeedRange
from ohlora.io.images import list_images
from ohlora.render.curves import CURVES, curve_looks
from ohlora.render.job import Look, OutputFormat, RenderJob, make_looks, spread, zip_values
from ohlora.render.plan import MAX_NAME_BYTES, PhotoPlan, PortraitPlan, Source, file_sources, result_name

looks = st.lists(
    st.builds(
        Look,
        st.sampled_from([Expression(), Expression(eyes=1.0), Expression(pose=-1.0)]),
        st.one_of(st.none(), st.builds(Ombre, st.sampled_from([0.0, 0.25, 0.5]))),
    ),
    min_size=1,
    max_size=12,
)


@given(st.integers(1, 6), looks, st.data())
def test_units_cover_the_pending_items_once(faces: int, looks: list[Look], data: st.DataObject) -> None:
    plan = PortraitPlan(RenderJob(SeedRange(0, faces - 1), tuple(looks)))
    pending = sorted(data.draw(st.sets(st.integers(0, len(plan) - 1))))
    units = list(plan.units(pending))
    assert sorted(output.item for unit in units for output in unit.outputs) == pending
    # One generator run per face and expression, never more.
    keys = [(unit.face, unit.expression) for unit in units]
    assert len(keys) == len(set(keys)) <= faces * len({look.expression for look in looks})
    for unit in units:
        for output in unit.outputs:
            assert output.item // len(looks) == unit.face
            assert looks[output.item % len(looks)].expression == unit.expression
            assert looks[output.item % len(looks)].ombre == output.ombre


@given(st.integers(1, 5), looks)
def test_file_names_are_distinct_and_independent_of_the_rest(faces: int, looks: list[Look]) -> None:
    plan = PortraitPlan(RenderJob(SeedRange(0, faces - 1), tuple(looks)))
    names = {o.item: o.file_name for unit in plan.units(range(len(plan))) for o in unit.outputs}
    assert len(set(names.values())) == len(plan)
    for item in names:
        ((unit,),) = [list(plan.units([item]))]
        assert unit.outputs[0].file_name == names[item]


def test_a_sweep_is_one_run_per_face() -> None:
    job = RenderJob(SeedRange(0, 49), make_looks(None, [Ombre(c / 40) for c in range(40)]))
    plan = PortraitPlan(job)
    assert (len(plan), len(list(plan.units(range(len(plan)))))) == (2000, 50)


def test_units_are_lazy() -> None:
    job = RenderJob(SeedRange(0, 9_999_999), (Look(),))
    assert next(PortraitPlan(job).units(iter(range(len(job))))).face == 0


def test_spread_and_zip() -> None:
    assert spread("--color", "0:1:5") == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert spread("--color", "0.1,0.9") == [0.1, 0.9]
    assert spread("--color", "0.3:0.9:1") == [0.3]
    assert zip_values("ombre", {"a": [1.0], "b": [2.0, 3.0]}) == [{"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 3.0}]
    for bad in ("x", "0:1", "0:1:0", "0:1:2:3", "", "1,,2"):
        with pytest.raises(InvalidInputError, match="--color"):
            spread("--color", bad)
    with pytest.raises(InvalidInputError, match="one length"):
        zip_values("ombre", {"a": [1.0, 2.0], "b": [1.0, 2.0, 3.0]})


@pytest.mark.parametrize("change", [{"format": "bmp"}, {"quality": 0}, {"quality": 101}, {"rounding": "up"}])
def test_bad_output(change: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError):
        OutputFormat(**change)  # type: ignore[arg-type]


@pytest.mark.parametrize("psi", [-0.1, 1.1, float("nan")])
def test_bad_truncation(psi: float) -> None:
    with pytest.raises(InvalidInputError, match="psi"):
        RenderJob(SeedRange(0, 0), (Look(),), psi=psi)


def touched(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).touch()
    return [folder / name for name in names]


def names_of(sources: list[Source]) -> list[str]:
    return [source.name for source in sources]


def test_results_are_named_after_the_place_below_the_root(tmp_path: Path) -> None:
    paths = touched(tmp_path, "a.jpg", "a.png", "b.jpg", "sub/b.jpg")
    assert names_of(file_sources(paths, [tmp_path])) == ["a_jpg", "a_png", "b", "sub/b"]
    assert [source.label for source in file_sources(paths, [tmp_path])] == ["a.jpg", "a.png", "b.jpg", "sub/b.jpg"]
    assert names_of(file_sources(paths[2:3], paths[2:3])) == ["b"]


def test_names_are_equal_however_a_folder_is_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touched(tmp_path, "faces/ann/001.jpg", "faces/bob/001.jpg", "here/x")
    (tmp_path / "link").symlink_to("faces")
    (tmp_path / "linked").mkdir()
    for person in ("ann", "bob"):
        (tmp_path / "linked" / f"{person}.jpg").symlink_to(f"../faces/{person}/001.jpg")
    monkeypatch.chdir(tmp_path / "here")
    expected = [("ann/001.jpg", "ann/001"), ("bob/001.jpg", "bob/001")]
    for root in (Path("../faces"), tmp_path / "link", Path("../link"), tmp_path / "faces"):
        sources = file_sources(list_images(root, recursive=True), [root])
        assert [(source.label, source.name) for source in sources] == expected
    monkeypatch.chdir(tmp_path / "faces")
    both = [Path(), Path("../linked")]
    assert names_of(file_sources(list_images(both, recursive=True), both)) == ["ann", "bob", "ann/001", "bob/001"]


def test_names_that_differ_in_case_alone_are_numbered(tmp_path: Path) -> None:
    paths = touched(tmp_path, "IMG_1.JPG", "IMG_1.jpg", "img_1_2.png")
    assert names_of(file_sources(paths, [tmp_path])) == ["IMG_1", "IMG_1_3", "img_1_2"]
    paths = touched(tmp_path, "a.JPG", "a.jpg", "a.png")
    assert names_of(file_sources(paths, [tmp_path])) == ["a_JPG", "a_jpg_2", "a_png"]


def test_files_of_one_name_in_two_folders_are_numbered_and_told_apart(tmp_path: Path) -> None:
    paths = touched(tmp_path, "b.jpg", "sub/b.jpg")
    sources = file_sources(paths, [paths[0], tmp_path / "sub"])
    assert names_of(sources) == ["b", "b_2"]
    assert [source.label for source in sources] == [path.as_posix() for path in paths]


@pytest.mark.parametrize("letter", ["x", "오", "\udce4"])
def test_a_name_too_long_for_a_file_system_is_cut(letter: str) -> None:
    name = "folder/" + letter * 255
    made = {result_name(name, ".jpg", number, 3) for number in range(3)}
    assert len(made) == 3
    for short in made:
        assert len(short.encode(errors="surrogatepass").rpartition(b"/")[2]) <= MAX_NAME_BYTES
        assert short.startswith(f"folder/{letter * 60}")
        assert short.endswith(".jpg")
    assert result_name("x" * 251, ".jpg") == "x" * 251 + ".jpg"


def test_photo_items() -> None:
    sources = [Source(Path("x.jpg"), "x.jpg", "x"), Source(Path("y.jpg"), "y.jpg", "y")]
    plan = PhotoPlan(sources, make_looks(None, [Ombre(0.1), Ombre(0.2)]), OutputFormat())
    names = [output.file_name for unit in plan.units(range(4)) for output in unit.outputs]
    assert names == ["x_0000.jpg", "x_0001.jpg", "y_0000.jpg", "y_0001.jpg"]


@pytest.mark.parametrize("name", sorted(CURVES))
def test_curves_stay_in_range(name: str) -> None:
    frames = curve_looks(name, expressions=True)
    assert len(frames) == CURVES[name].frames
    assert all((look.ombre is None) == (CURVES[name].ombre is None) for look in frames)


def test_documented_curve_values() -> None:
    frames = curve_looks("gif40", expressions=True)
    assert frames[10].ombre == Ombre(0.25, 0.2, 0.2)
    assert frames[0].expression == Expression(-1.2, 1.2, 0.6)
    assert frames[20].expression.eyes == pytest.approx(1.2)
    assert frames[30].expression.pose == -1.2
    with pytest.raises(InvalidInputError, match="unknown curve"):
        curve_looks("nope", expressions=False)
