from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ohlora.base.values import Expression, Ombre
from ohlora.errors import InvalidInputError
from ohlora.faces import SeedRange
from ohlora.render.curves import CURVES, curve_looks
from ohlora.render.job import Look, OutputFormat, RenderJob, make_looks, spread, zip_values
from ohlora.render.plan import PhotoPlan, PortraitPlan, output_names

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


def test_output_names(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "b.jpg", "sub/b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    paths = [tmp_path / n for n in ("a.jpg", "a.png", "b.jpg", "sub/b.jpg")]
    assert output_names(paths, [tmp_path]) == ["a_jpg", "a_png", "b", "sub/b"]
    assert output_names([tmp_path / "b.jpg"], [tmp_path / "b.jpg"]) == ["b"]
    with pytest.raises(InvalidInputError, match="both be written"):
        output_names([tmp_path / "b.jpg", tmp_path / "sub" / "b.jpg"], [tmp_path / "b.jpg", tmp_path / "sub"])


def test_photo_items() -> None:
    plan = PhotoPlan(
        [Path("x.jpg"), Path("y.jpg")], ["x", "y"], make_looks(None, [Ombre(0.1), Ombre(0.2)]), OutputFormat()
    )
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
