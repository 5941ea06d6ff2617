"""The reference data of the repository: how large they are, what they are not, and where they come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.golden.thin import THINNED, outside_the_face, thin
from tests.support.versions import needs_pillow_13

FOLDERS = ("cnn", "stylegan", "segmentation", "properties", "ombre")
MOST_BYTES = 6_000_000


def data_files(folder: Path) -> dict[str, Path]:
    return {str(path.relative_to(folder)): path for name in FOLDERS for path in sorted((folder / name).iterdir())}


def test_size_and_kinds(golden: Path) -> None:
    files = data_files(golden)
    assert {path.suffix for path in files.values()} == {".npz", ".json", ".csv"}
    assert sum(path.stat().st_size for path in files.values()) < MOST_BYTES
    readme = (golden / "README.md").read_text()
    assert [name for name in THINNED if Path(name).name not in readme] == []


def test_nothing_of_a_face_is_in_it(golden: Path) -> None:
    for name in ("effisegnet_b0", "facexformer"):
        with np.load(golden / "segmentation" / f"{name}.npz") as stored:
            assert not [key for key in stored.files if key.startswith("input_") and key != "input_a_seed"]
            assert not [key for key in stored.files if key.endswith(("_b", "_c")) or "_b_" in key]
    with np.load(golden / "ombre" / "special_points.npz") as stored:
        assert len(stored["yx"]) < 64
        rows, columns = stored["yx"].T // 4
    assert outside_the_face()[rows, columns].all()


@needs_pillow_13
def test_it_is_the_thinned_full_data(shared: Path, golden: Path, tmp_path: Path) -> None:
    thin(shared / "golden", tmp_path)
    made, kept = data_files(tmp_path), data_files(golden)
    assert list(made) == list(kept)
    for name, path in kept.items():
        if path.suffix != ".npz":
            assert made[name].read_bytes() == path.read_bytes(), name
            continue
        with np.load(made[name]) as first, np.load(path) as second:  # zlib's bytes depend on its version
            assert first.files == second.files, name
            for key in second.files:
                assert first[key].dtype == second[key].dtype, (name, key)
                assert np.array_equal(first[key], second[key], equal_nan=second[key].dtype.kind == "f"), (name, key)
