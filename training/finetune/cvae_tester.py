"""Testers of a finished conditional generator: a grid of labels for one latent, and the final pictures of a chosen
face (docs/spec/stylegan.md, section 9.3).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ohlora.base.atomic import make_folder, write_json
from ohlora.errors import InvalidInputError
from ohlora.training.finetune.property_test import (
    TESTER_GRID,
    Conditioning,
    Float32s,
    compare,
    draw_parts,
    label_columns,
    label_grid,
    tested_scores,
)
from ohlora.training.finetune.property_test_files import TestPictures, write_scores, write_vectors
from ohlora.training.finetune.trial_pictures import write_pictures
from ohlora.training.gan.data import to_images
from ohlora.training.loop.streams import normal
from ohlora.training.nets.score_cnns import PropertyCnn
from ohlora.training.nets.stylegan import Generator

SPREAD = 0.3  # of the latents around the chosen one
FINAL_LABEL = (1.8, 0.0, 0.0, 1.6, -1.2, 0.0, 0.0)
FINAL_COUNT = 20
NEAR_KEY, FINAL_KEY = 41, 42


def require_latent(generator: Generator, z: Float32s) -> Float32s:
    """z [z_size] or [1, z_size] -> [z_size]. Raises InvalidInputError for another shape."""
    row = np.asarray(z, np.float32).reshape(-1)
    if row.size != generator.config.z_size:
        raise InvalidInputError(
            f"one latent of {generator.config.z_size} values is needed, got shape {list(np.shape(z))}"
        )
    return row


def checkpoint_test(
    generator: Generator,
    z: Float32s,
    out: Path,
    *,
    property_cnn: PropertyCnn | None = None,
    seed: int = 0,
    dump: str = "grid",
) -> dict[str, Any]:
    """5 eyes x 5 mouth x 5 pose labels at z, and the same at z + 0.3 N(0,1), fresh for every picture.

    Writes the pictures below OUT/exact and OUT/near (`dump`: "grid" or "files") and z.csv; with a property CNN also
    test_result.csv in each and correlation and mean absolute error, returned and in OUT/test.json. Raises
    InvalidInputError for a generator whose label has no eyes, mouth and pose, or a latent of another size.
    """
    row = require_latent(generator, z)
    labels = label_grid(TESTER_GRID, generator.config.label_size)
    make_folder(out)
    write_vectors(out / "z.csv", row[None])
    result: dict[str, Any] = {"pictures": 2 * len(labels), "seed": seed}
    near = row + SPREAD * normal((seed, NEAR_KEY), len(labels), row.size)
    for name, latents in (("exact", np.repeat(row[None], len(labels), 0)), ("near", near)):
        measured = _grid(generator, latents, labels, out / name, property_cnn, dump)
        if measured is not None:
            write_scores(out / name / "test_result.csv", measured, 0)
            result[name] = measured.summary()
    write_json(out / "test.json", result)
    return result


def _grid(
    generator: Generator, z: Float32s, labels: Float32s, folder: Path, property_cnn: PropertyCnn | None, dump: str
) -> Conditioning | None:
    pictures = TestPictures(folder, dump, columns=len(TESTER_GRID["pose"]) * len(TESTER_GRID["mouth"]))
    scores = []
    for images in draw_parts(generator, z, labels):
        pictures.add(images)
        if property_cnn is not None:
            scores.append(tested_scores(property_cnn, images))
    pictures.close()
    asked = labels[:, list(label_columns(labels.shape[1]))].astype(np.float64)
    return compare(asked[None], np.concatenate(scores)[None]) if scores else None


def final_pictures(generator: Generator, z: Float32s, out: Path, *, count: int = FINAL_COUNT, seed: int = 0) -> Path:
    """The documented last look: `count` pictures OUT/NNNNNN.jpg with wide open eyes and mouth.

    Picture 0 is that of z, the others those of z + 0.3 N(0,1). Raises InvalidInputError as `checkpoint_test` does.
    """
    if count < 1:
        raise InvalidInputError(f"count must be 1 or more, got {count}")
    row, columns = require_latent(generator, z), label_columns(generator.config.label_size)
    label = np.zeros(generator.config.label_size, np.float32)
    label[list(columns)] = [FINAL_LABEL[i] for i in label_columns(len(FINAL_LABEL))]
    latents = row + SPREAD * normal((seed, FINAL_KEY), count, row.size)
    latents[0] = row
    parts = draw_parts(generator, latents, np.repeat(label[None], count, 0))
    write_pictures(out, np.concatenate([to_images(images) for images in parts]), "files")
    return out
