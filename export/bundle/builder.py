"""Checkpoints -> bundle: rewrite, export, check against the PyTorch module, record what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel

from ohlora.base.types import Report, check_choice
from ohlora.bundle import Bundle
from ohlora.bundle.gallery import GalleryEntry, read_gallery, write_gallery
from ohlora.bundle.manifest import GalleryPart
from ohlora.bundle.write import BundleDraft, new_bundle
from ohlora.errors import InvalidInputError
from ohlora.export.bundle.directions import add_directions, load_directions
from ohlora.export.bundle.generator import add_generator
from ohlora.export.bundle.students import add_student
from ohlora.export.graphs.generator import STORAGES, Storage
from ohlora.export.networks.registry import load_network
from ohlora.faces import load_faces
from ohlora.latents.directions import Directions
from ohlora.training.directions.known_latents import state_sha256
from ohlora.training.nets.stylegan import Generator, GeneratorConfig

CARD, GALLERY = "MODEL_CARD.md", "gallery.csv"
PUBLISHED_GALLERY = "ohlora_z_vectors.csv"


def build_bundle(
    out: Path,
    *,
    generator: Path | None,
    kind: str,
    hair: str,
    directions: Path | None,
    name: str,
    license: str,
    provenance: str | None,
    space: str | None = None,
    storage: Storage = "float32",
    gallery: Path | None = None,
    overwrite: bool = False,
    metrics: dict[str, Any] | None = None,
    card: str | None = None,
    parsing: str | None = None,
    parsing_metrics: dict[str, Any] | None = None,
    report: Report = lambda line: None,
) -> Bundle:
    """Compile checkpoints into the bundle `out`. See `ohlora bundle build --help` for the sources.

    space: of the directions, where their folder holds several. storage: of the generator's weights. gallery: faces with
    the columns name, group, v0 ...; None takes those beside published directions. metrics: figures of the student for
    the manifest. card: text of MODEL_CARD.md, written from the parts if None. parsing: a face parser (a student of
    `train parsing`, or another bundle's), None for none.
    Raises InvalidInputError, CheckpointError, EngineError, BundleError or OutputError; then `out` is as it was.
    """
    if directions is None and space is not None:
        raise InvalidInputError(f"--space {space} chooses among the tables of a folder: give --directions FOLDER too")
    for option, given in (("directions", directions), ("gallery", gallery)):
        if given is not None and generator is None:
            raise InvalidInputError(f"--{option} belong to a generator: give --generator too")
    check_choice("--storage", storage, STORAGES)
    found = None if directions is None else load_directions(directions, space)
    with new_bundle(out, overwrite=overwrite) as draft:
        draft.name, draft.license = name, license
        draft.provenance = provenance or describe_sources(generator, kind, hair, directions, parsing)
        students = "hair and parsing students" if parsing else "hair student"
        draft.description = f"generator and {students}" if generator else students
        if generator is not None:
            # What people get wrong is found before the export, which takes a while.
            module = cast(Generator, load_network("generator", kind, generator))
            if found is not None:
                found.require_generator(module.config, state_sha256(module), generator.name)
            faces = named_faces(gallery, directions, module.config, found)
            draft.generator = add_generator(draft.folder, module, kind, storage, report)
            draft.directions = None if found is None else add_directions(draft.folder, found, draft.generator)
            if faces:
                write_gallery(draft.folder / GALLERY, faces)
                draft.gallery = GalleryPart(file=GALLERY, count=len(faces))
        add_student(draft, "hair", hair, metrics, report)
        if parsing is not None:
            add_student(draft, "parsing", parsing, parsing_metrics, report)
        (draft.folder / CARD).write_text(card or model_card(draft), encoding="utf-8")
    return Bundle.open(out)


def describe_sources(
    generator: Path | None, kind: str, hair: str, directions: Path | None, parsing: str | None = None
) -> str:
    """File names, never folders: a bundle travels, its builder's directories do not."""
    lines = [f"hair: {Path(hair).name}"]
    lines += [f"parsing: {Path(parsing).name}"] if parsing else []
    lines += [f"generator: {generator.name} ({kind})"] if generator else []
    lines += [f"directions: {directions.name}"] if directions else []
    return "; ".join(lines)


def named_faces(
    table: Path | None, folder: Path | None, config: GeneratorConfig, directions: Directions | None
) -> list[GalleryEntry]:
    """The faces of `table`, else the chosen faces that lie beside published directions, else none."""
    if table is not None:
        groups = None if directions is None else directions.groups
        entries = read_gallery(table, config.z_size, config.label_size, groups)
        if not entries:
            raise InvalidInputError(f"the gallery {table} has no faces: give one with faces or leave --gallery out")
        return entries
    published = None if folder is None or directions is None else published_faces(folder, directions.space)
    if published is None or directions is None:
        return []
    # A set without groups is for every face, whatever group other sets put it into.
    grouped = len(directions.groups) > 1
    faces = load_faces([str(published)], config.label_size)
    return [GalleryEntry(face.name, face.group if grouped else None, face.z, face.label) for face in faces]


def published_faces(folder: Path, space: str) -> Path | None:
    """The z-vector table that belongs to the directions of `space`, by its table of group names; None without."""
    for names in sorted(folder.glob(f"ohlora_{space}_group_names*.csv")):
        table = folder / names.name.replace(f"ohlora_{space}_group_names", "ohlora_z_vectors")
        if table.is_file():
            return table
    return folder / PUBLISHED_GALLERY if (folder / PUBLISHED_GALLERY).is_file() else None


def model_card(draft: BundleDraft) -> str:
    """A plain card: what is inside, where it is from, what was measured."""
    lines = [f"# {draft.name}", "", f"Licence of the weights: {draft.license}"]
    lines += ["", f"Made from: {draft.provenance}", ""]
    for role in ("hair", "parsing", "generator", "directions", "gallery"):
        if (part := getattr(draft, role)) is not None:
            lines += part_lines(role, part)
    return "\n".join(lines)


def part_lines(title: str, part: BaseModel) -> list[str]:
    """What a card says of a part."""
    said = [f"- {key}: {value}" for key, value in part.model_dump().items() if value not in ("", {}, None)]
    return [f"## {title}", "", *said, ""]
