"""Direction tables and faces in the published layout, with random numbers."""

from __future__ import annotations

from pathlib import Path


def write_directions(folder: Path, groups: tuple[str, ...] = ("hh", "ll")) -> None:
    """Published layout: one table per property and group, and two faces with their groups."""
    import numpy as np

    rng = np.random.default_rng(5)
    tables = folder / "property_score_vectors"
    tables.mkdir(parents=True)
    for name in ("eyes", "mouth", "pose"):
        for group in groups:
            vector = rng.standard_normal(512)
            vector /= np.linalg.norm(vector)
            header = "," + ",".join(map(str, range(512)))
            row = "0," + ",".join(repr(float(v)) for v in vector)
            (tables / f"{name}_change_w_vector_{group}.csv").write_text(f"{header}\n{row}\n")
    rows = [",".join(f"{v:.4f}" for v in rng.standard_normal(512)) for _ in range(2)]
    (folder / "ohlora_z_vectors.csv").write_text("\n".join([",".join(map(str, range(512))), *rows]) + "\n")
    names = "case,vector_no,group_name,eyes_corr,mouth_corr,pose_corr\n7,0,hh,-.9,-.9,-.9\n31,0,ll,-.9,-.9,-.9\n"
    (folder / "ohlora_w_group_names.csv").write_text(names)
