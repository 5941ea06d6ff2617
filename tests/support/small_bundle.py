"""A small complete bundle: its files as a builder leaves them, and ways to change it."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from ohlora.bundle import Bundle, DirectionsPart, GalleryPart, GeneratorPart, HairPart, generator_identity_of
from ohlora.bundle.write import new_bundle
from ohlora.engines import open_engine
from ohlora.engines.selftest import Probe, save_probe
from tests.support.small_models import LABEL, LAYERS, RESOLUTION, SIZE, Z, hair_model, mapping_model, synthesis_model

GROUPS = ["hhh", "lll"]
HAIR = HairPart(
    file="hair.onnx",
    probe="hair_probe.safetensors",
    input_size=SIZE,
    architecture="small",
    metrics={"iou": 0.9},
)
GENERATOR = GeneratorPart(
    kind="small",
    mapping="net/mapping.onnx",
    synthesis="net/synthesis.onnx",
    probe="net/probe.safetensors",
    constants="net/constants.safetensors",
    z_size=Z,
    label_size=LABEL,
    w_size=Z,
    num_layers=LAYERS,
    resolution=RESOLUTION,
)
ROW = ["a", "hhh", *range(9)]  # a gallery line


def stage(folder: Path, z_size: int = Z, gain: float = 1.0) -> Path:
    """Put the files of a complete bundle into the empty `folder`. gain: contrast of its hair maps."""
    (folder / "net").mkdir()
    rng = np.random.default_rng(0)
    hair_model(folder / "hair.onnx", gain=gain)
    mapping_model(folder / "net/mapping.onnx", z=z_size)
    synthesis_model(folder / "net/synthesis.onnx", z=z_size)

    def probe(file: str, **inputs: np.ndarray) -> Probe:
        with open_engine(folder / file, backend="onnxruntime") as engine:
            return Probe(inputs, engine(**inputs))

    image = rng.integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    save_probe(folder / "hair_probe.safetensors", hair=probe("hair.onnx", image=image))
    z, label, wp = (
        rng.standard_normal((2, *shape)).astype(np.float32) for shape in ((z_size,), (LABEL,), (LAYERS, z_size))
    )
    save_probe(
        folder / "net/probe.safetensors",
        mapping=probe("net/mapping.onnx", z=z, label=label),
        synthesis=probe("net/synthesis.onnx", wp=wp),
    )
    save_file({"w_avg": np.arange(z_size, dtype=np.float32)}, folder / "net/constants.safetensors")
    vectors = {name: rng.standard_normal((len(GROUPS), z_size)) for name in ("eyes", "mouth", "pose")}
    save_file(vectors, folder / "directions.safetensors")
    write_gallery(
        folder / "gallery.csv",
        [["672", "hhh", *(0.25 * i for i in range(z_size + LABEL))], ["v2-1836", "", *[-1] * (z_size + LABEL)]],
        z_size + LABEL,
    )
    (folder / "MODEL_CARD.md").write_text("A small bundle.\n")
    (folder / "LICENSE").write_text("Apache-2.0\n")
    return folder


def write_gallery(path: Path, rows: list[list[object]], width: int = Z + LABEL) -> None:
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([["name", "group", *(f"v{i}" for i in range(width))], *rows])


def parts(staging: Path) -> dict[str, object]:
    identity = generator_identity_of(
        *(staging / "net" / f for f in ("mapping.onnx", "synthesis.onnx", "constants.safetensors"))
    )
    return {
        "hair": HAIR,
        "generator": GENERATOR,
        "directions": DirectionsPart(
            file="directions.safetensors",
            generator_sha256=identity,
            groups=GROUPS,
            properties=["eyes", "mouth", "pose"],
        ),
        "gallery": GalleryPart(file="gallery.csv", count=2),
    }


def write(folder: Path, staging: Path, overwrite: bool = False, **changes: object) -> Bundle:
    """The small bundle of the files in `staging`. changes: of what its manifest says."""
    said = {"name": "small", "license": "Apache-2.0", "provenance": "made by a test", **parts(staging), **changes}
    return write_bundle(folder, staging, overwrite, **said)


def write_bundle(folder: Path, staging: Path, overwrite: bool = False, **said: object) -> Bundle:
    with new_bundle(folder, overwrite=overwrite) as draft:
        shutil.copytree(staging, draft.folder, symlinks=True, dirs_exist_ok=True)
        vars(draft).update(said)
    return Bundle.open(folder)


def edit(folder: Path, change) -> None:
    """Change the parsed manifest in place and write it back."""
    path = folder / "bundle.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def relist(folder: Path, name: str) -> None:
    """Make the manifest agree with a file that was changed, so that only the content's own check is left."""
    data = (folder / name).read_bytes()
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    edit(folder, lambda manifest: manifest["files"].update({name: entry}))
