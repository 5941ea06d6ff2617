"""The demo bundle's hair finder alone, as a bundle."""

from __future__ import annotations

from pathlib import Path

from ohlora.bundle import Bundle
from ohlora.bundle.write import new_bundle


def hair_only(folder: Path) -> Bundle:
    """The demo's student without a generator."""
    demo = Bundle.open("demo")
    with new_bundle(folder) as draft:
        draft.name, draft.license, draft.provenance, draft.hair = "hair", "none", "demo", demo.hair_part()
        draft.take(demo, draft.hair.file, draft.hair.probe)
    return Bundle.open(folder)
