"""The demo bundle's hair finder alone, as a bundle."""

from __future__ import annotations

import shutil
from pathlib import Path

from ohlora.bundle import Bundle
from ohlora.bundle.write import write_bundle


def hair_only(folder: Path) -> Bundle:
    """The demo's student without a generator."""
    demo = Bundle.open("demo")
    part, staging = demo.hair_part(), folder.with_name("staging")
    staging.mkdir()
    for name in (part.file, part.probe):
        shutil.copy(demo.file(name), staging / name)
    return write_bundle(folder, staging=staging, name="hair", license="none", provenance="demo", hair=part)
