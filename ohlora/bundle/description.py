"""What `ohlora bundle info` shows of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ohlora.bundle import Bundle
from ohlora.bundle.manifest import Framing


def describe(bundle: Bundle) -> list[tuple[str, str]]:
    """(label, value) rows."""
    manifest = bundle.manifest
    rows = [
        ("name", bundle.name),
        ("description", manifest.description),
        ("license", manifest.license),
        ("provenance", manifest.provenance),
        ("made by", f"ohlora {manifest.ohlora_version}, format {manifest.format}"),
        ("folder", str(bundle.path)),
        ("identity", bundle.identity),
        ("files", f"{len(manifest.files)}, {sum(f.size for f in manifest.files.values()) / 1e6:.1f} MB"),
    ]
    if hair := manifest.hair:
        fed = ", fed as documented" if hair.input == "documented" else ""
        rows.append(("hair", f"{hair.architecture}, {hair.input_size} px{fed}{_figures(hair.parity, hair.metrics)}"))
    if parsing := manifest.parsing:
        # Figures of every class would fill the screen; they stand in bundle.json.
        mean = {key: value for key, value in parsing.metrics.items() if key in ("iou", "f1", "accuracy")}
        text = f"{parsing.architecture}, {parsing.input_size} px{_figures(parsing.parity, mean)}"
        rows.append(("parsing", text))
    if part := manifest.generator:
        label = f", label {part.label_size}" if part.label_size else ""
        label += f", psi {part.psi:g}" if part.psi < 1 else ""
        label += f", {part.precision} where the CPU has it" if part.precision != "fp32" else ""
        framing = part.framing or Framing()
        rows += [
            (
                "generator",
                f"{part.kind}, {part.resolution} px, z {part.z_size}{label}{_figures(part.parity)}",
            ),
            ("generator identity", bundle.generator_identity),
        ]
        if not framing.neutral:
            shown = f"the hair model is shown {framing.scale:g} of the portrait's side, {framing.down:+g} of it below"
            rows.append(("framing", shown))
    if directions := manifest.directions:
        source = f" ({directions.source})" if directions.source else ""
        space = "" if directions.space == "w" else f", in {directions.space}"
        networks = f", {', '.join(directions.networks)} by a network" if directions.networks else ""
        text = f"{', '.join(directions.properties)} in {len(directions.groups)} groups{space}{networks}{source}"
        rows.append(("directions", text))
    if gallery := manifest.gallery:
        rows.append(("gallery", f"{gallery.count} faces"))
    return rows


def _figures(*tables: Mapping[str, Any]) -> str:
    return "".join(f", {key} {value}" for table in tables for key, value in sorted(table.items()))
