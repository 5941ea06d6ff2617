"""docs/photo.md says what the bundles' cards say."""

from __future__ import annotations

from pathlib import Path

from ohlora.bundle.photo import terms
from ohlora.bundle.photo.bundles import PHOTO_BUNDLES

ROOT = Path(__file__).resolve().parents[2]


def test_the_terms_are_in_the_document() -> None:
    text = " ".join((ROOT / "docs" / "photo.md").read_text(encoding="utf-8").split())
    for point in (terms.TEACHER, terms.RESTRICTION, terms.UNSETTLED):
        assert " ".join(point.split()) in text
    assert all(f"`{name}`" in text for name in PHOTO_BUNDLES)


def test_readme_offers_both_ways() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "pip install -e . && ohlora render --count 1000 --out portraits\n" in text
    assert "ohlora render --bundle photo --count 100 --color 0.95 --out people\n" in text
