from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ohlora.directions import read_published_directions
from ohlora.errors import BadRequest
from ohlora.params import Expression, Face
from tests.conftest import write_directions


def test_sum_in_documented_order(tmp_path: Path) -> None:
    write_directions(tmp_path / "d")
    directions = read_published_directions(tmp_path / "d")
    face = Face(np.zeros(512), group="ll")
    w = np.random.default_rng(0).standard_normal(512).astype(np.float32)
    v = {name: directions.vectors[name]["ll"] for name in ("eyes", "mouth", "pose")}
    expected = (((w.astype(np.float64) + -1.2 * v["eyes"]) + 0.5 * v["mouth"]) + 0.25 * v["pose"]).astype(np.float32)
    assert np.array_equal(directions.apply(w, face, Expression(-1.2, 0.5, 0.25)), expected)
    assert directions.apply(w, face, Expression()) is w


def test_faces_without_a_known_group_are_refused(tmp_path: Path) -> None:
    write_directions(tmp_path / "d")
    directions = read_published_directions(tmp_path / "d")
    with pytest.raises(BadRequest, match="'nobody' has no direction group"):
        directions.check(Face(np.zeros(512), name="nobody"))
    with pytest.raises(BadRequest, match="group 'xx'"):
        directions.check(Face(np.zeros(512), name="f", group="xx"))


def test_incomplete_sets_are_refused(tmp_path: Path) -> None:
    write_directions(tmp_path / "d")
    tables = tmp_path / "d" / "property_score_vectors"
    (tables / "pose_change_w_vector_hh.csv").unlink()
    with pytest.raises(BadRequest, match="groups of pose"):
        read_published_directions(tmp_path / "d")
    (tables / "pose_change_w_vector_hh.csv").write_text(",0,1\n0,1.0,2.0\n")
    with pytest.raises(BadRequest, match="must hold 512 finite numbers, got 2"):
        read_published_directions(tmp_path / "d")
    with pytest.raises(BadRequest, match="no direction tables"):
        read_published_directions(tmp_path)


@pytest.mark.parametrize(("version", "groups"), [("v7", 8), ("v8", 16)])
def test_published_tables(shared: Path, version: str, groups: int) -> None:
    directions = read_published_directions(shared / "data" / "ohlora" / version)
    assert len(directions.groups) == groups
    for group in directions.groups:
        assert np.linalg.norm(directions.vectors["eyes"][group]) == pytest.approx(1, abs=1e-6)
