"""Thins the full reference data to the part that this folder holds: numbers of seeded weights, no images of faces.

    python -m tests.golden.thin SOURCE [--out FOLDER]

SOURCE is the folder of the full data, with the faces at SOURCE/../data/faces; FOLDER is this folder unless given.
The full data stay outside the repository. A rerun writes the same bytes.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Arrays = dict[str, NDArray[Any]]
HERE = Path(__file__).resolve().parent

# Copied byte for byte. Their inputs are stored noise, drawn shapes, or seeds.
COPIED = (
    "cnn/*.json",
    "cnn/*.npz",
    "stylegan/*.json",
    "stylegan/*.npz",
    "segmentation/*_keys.json",
    "segmentation/kd_metrics.json",
    "segmentation/bisenet19.npz",
    "properties/edge_*",
    "properties/random_*",
    "properties/*.csv",
    "ombre/hue_table.json",
)
SPECIAL_IMAGE = "ftv1_000001_rgb256.png"  # under all artificial hair maps of ombre/special.npz
SPECIAL_STEP = 4  # its results are stored at every 4th row and column
POINTS_PER_CASE = 4
DYE = ("color", "ombre_height", "ombre_grad_height", "hue_index", "hair_top", "hair_bottom", "grad_top", "grad_bottom")

BOX = ("name", "x1", "y1", "x2", "y2", "crop_x0", "crop_y0", "crop_x1", "crop_y1")


def read_arrays(path: Path) -> Arrays:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")


def read_image(path: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path).convert("RGB"))


def thin_original_generator(stored: Arrays) -> Arrays:
    """Two complete images are a megabyte; every array but these is stored at single pixels or pooled."""
    stored["image_full_f16"] = stored["image_full_f16"][..., ::4, ::4]
    stored["image_u8"] = stored["image_u8"][:, ::2, ::2]
    return stored


def thin_student(stored: Arrays) -> Arrays:
    """Input a is seeded noise; b and c are a face, which shows in the outputs too."""
    stored = {name: stored[name] for name in stored if name.endswith(("_a", "_a_seed")) or name.startswith("enc")}
    return stored | {name: stored[name][::2, ::2] for name in ("output_a", "logits_a")}


def thin_teacher(stored: Arrays) -> Arrays:
    """Input a is seeded noise; b is a face."""
    return {name: stored[name] for name in stored if not name.endswith("_b") and "_b_" not in name}


THINNED: dict[str, Callable[[Arrays], Arrays]] = {
    "stylegan/orig_generator.npz": thin_original_generator,
    "segmentation/effisegnet_b0.npz": thin_student,
    "segmentation/facexformer.npz": thin_teacher,
}


def outside_the_face() -> NDArray[np.bool_]:
    """Which stored rows and columns of the special image show hair or background, [64,64]."""
    outside = np.ones((64, 64), np.bool_)
    outside[12:, 16:50] = False
    return outside


def evenly(places: NDArray[np.intp]) -> NDArray[np.intp]:
    """At most POINTS_PER_CASE of the rows of `places`, from the first to the last."""
    chosen = np.linspace(0, len(places) - 1, min(len(places), POINTS_PER_CASE)).round().astype(int)
    return places[chosen]


def thin_special(folder: Path) -> Arrays:
    """The artificial hair maps, with input and results at single points that lie outside the face.

    A dyed pixel depends on its own color, the hair map, and the dye, so that the rest of the image is not needed.
    """
    stored = read_arrays(folder / "special.npz")
    image = read_image(folder / SPECIAL_IMAGE)[::SPECIAL_STEP, ::SPECIAL_STEP]
    outputs = {name: value for name, value in stored.items() if name.startswith("out_")}
    places = [evenly(np.argwhere(outside_the_face()))]
    places += [evenly(np.argwhere((value != image).any(-1) & outside_the_face())) for value in outputs.values()]
    rows, columns = np.unique(np.concatenate(places), axis=0).T
    return {
        "yx": np.stack([rows, columns], 1) * SPECIAL_STEP,
        "rgb": image[rows, columns],
        **{name: value for name, value in stored.items() if name.startswith("mask_")},
        **{name.removesuffix("_trunc_rows_every_4"): value[rows, columns] for name, value in outputs.items()},
    }


def dye_numbers(case: dict[str, Any]) -> dict[str, Any]:
    return {key: case[key] for key in DYE}


def face_rows(source: Path) -> list[dict[str, str]]:
    """What the detector of facenet-pytorch answers for the 60 faces, and upstream's crops."""
    with (source.parent / "data" / "faces" / "mtcnn.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def write_crop_boxes(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, BOX, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def stored_face_values(source: Path) -> NDArray[np.uint8]:
    """What upstream stores for every byte of a face image, per channel, [3,256].

    It normalizes the image, reverses that, and truncates, so that some bytes become 1 less. The result depends on
    the byte and its channel only, and the 60 images together hold every byte.
    """
    faces = source.parent / "data" / "faces"
    seen = np.zeros((3, 256, 256), np.bool_)  # channel, before, after
    for row in face_rows(source):
        x0, y0, x1, y1 = (int(row[f"crop_{side}"]) for side in ("x0", "y0", "x1", "y1"))
        crop = Image.open(faces / f"{row['name']}.jpg").convert("RGB").crop((x0, y0, x1, y1))
        before = np.asarray(crop.resize((224, 224), Image.Resampling.BICUBIC))
        after = read_image(source / "properties" / "inputs" / f"{row['name']}_img_crop.png")
        seen[np.arange(3), before, after] = True
    if not (seen.sum(2) == 1).all():
        raise SystemExit("the images of the source do not tell one stored value for every byte")
    return seen.argmax(2).astype(np.uint8)


def thin(source: Path, out: Path) -> None:
    """Writes the thinned data of `source` below `out`."""
    for folder in ("cnn", "stylegan", "segmentation", "properties", "ombre"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for pattern in COPIED:
        for path in sorted(source.glob(pattern)):
            name = path.relative_to(source)
            if str(name) not in THINNED:
                (out / name).write_bytes(path.read_bytes())
    for name, rule in THINNED.items():
        np.savez_compressed(out / name, **rule(read_arrays(source / name)))
    np.savez_compressed(out / "ombre" / "special_points.npz", **thin_special(source / "ombre"))
    write_crop_boxes(out / "segmentation" / "crop_boxes.csv", face_rows(source))
    special = json.loads((source / "ombre" / "special.json").read_text())["cases"]
    write_json(out / "ombre" / "special.json", {name: dye_numbers(case) for name, case in special.items()})
    cases = json.loads((source / "ombre" / "cases.json").read_text())
    write_json(out / "ombre" / "cases.json", {name: list(map(dye_numbers, listed)) for name, listed in cases.items()})
    np.savez_compressed(out / "properties" / "stored_face_values.npz", values=stored_face_values(source))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of the full reference data")
    parser.add_argument("--out", type=Path, default=HERE)
    arguments = parser.parse_args()
    thin(arguments.source.resolve(), arguments.out)


if __name__ == "__main__":
    main()
