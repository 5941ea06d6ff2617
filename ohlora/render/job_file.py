"""A render job as a JSON file, for jobs that are kept, shared or written by programs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ohlora.base.reading import TEXT_LIMIT, check_json, decode, read_file
from ohlora.base.text import shown
from ohlora.base.values import Expression, Face, Ombre
from ohlora.bundle import Bundle
from ohlora.errors import InvalidInputError
from ohlora.faces import MAX_SEED, JoinedFaces, SeedRange, load_faces
from ohlora.latents.expression_words import preset_expression
from ohlora.render.edits import named_looks
from ohlora.render.job import Look, OutputFormat, RenderJob, look_record


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ExpressionEntry(_Strict):
    """Strengths, or words in place of them."""

    eyes: float = 0.0
    mouth: float = 0.0
    pose: float = 0.0
    words: str | None = None


class LookEntry(_Strict):
    """expression: strengths, or a text such as "eyes wide, mouth normal, pose none"."""

    expression: ExpressionEntry = ExpressionEntry()
    ombre: Ombre | None = None

    @field_validator("expression", mode="before")
    @classmethod
    def _text_is_words(cls, value: Any) -> Any:
        # Not a union of text and strengths: messages would name a branch of it in place of the field.
        return ExpressionEntry(words=value) if isinstance(value, str) else value


class JobFile(_Strict):
    """faces as on the command line; looks: a list, one picture per face and look, or the name of a set.

    expression_seed: draws expressions in words from their ranges, by (seed, position of the look); without, middles.
    """

    faces: list[str] = Field(min_length=1)
    looks: list[LookEntry] = Field(default=[LookEntry()], min_length=1)
    expression_seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    psi: float | None = None
    truncation_layers: int | None = None
    format: str = "jpeg"
    quality: int = 95
    rounding: str = "truncate"
    mark: bool = True

    @field_validator("looks", mode="before")
    @classmethod
    def _name_is_a_set(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return [{**look_record(look), "ombre": look.ombre} for look in named_looks(value)]


def read_job_file(path: Path, label_size: int, bundle: Bundle) -> RenderJob:
    """Read and check a job. Face files are relative to the job file. Raises InvalidInputError naming file and field."""
    try:
        data = check_json(read_file(path, "job file", limit=TEXT_LIMIT))
        entry = JobFile.model_validate_json(decode(data, f"the job file {path}"))
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = shown(".".join(str(part) for part in first["loc"]), 160) or "the file"
        message = shown(first["msg"].removeprefix("Value error, "), 300)
        raise InvalidInputError(f"{path}: {where}: {message}") from error
    except InvalidInputError:
        raise
    except ValueError as error:
        raise InvalidInputError(f"the job file {path} is not valid JSON: {error}") from error
    beside = [str(path.parent / spec) if ".csv" in spec or ".np" in spec else spec for spec in entry.faces]
    looks = tuple(
        Look(_expression(look.expression, entry.expression_seed, number, path), look.ombre)
        for number, look in enumerate(entry.looks)
    )
    output = OutputFormat.checked(entry.format, entry.quality, entry.rounding, entry.mark)
    return RenderJob(load_faces(beside, label_size, bundle), looks, output, entry.psi, entry.truncation_layers)


def _expression(entry: ExpressionEntry, seed: int | None, number: int, path: Path) -> Expression:
    numbers = entry.model_dump(exclude={"words"})
    if entry.words is None:
        return Expression(**numbers)
    if entry.model_fields_set != {"words"}:
        raise InvalidInputError(f"{path}: looks.{number}.expression: give words or eyes, mouth and pose, not both")
    try:
        return preset_expression(entry.words, seed, number)
    except InvalidInputError as error:
        raise InvalidInputError(f"{path}: looks.{number}.expression: {error}") from error


def faces_record(faces: Sequence[Face]) -> list[Any]:
    """What identifies the faces of a job: seed ranges as they are, tables by a hash of their content."""
    if isinstance(faces, JoinedFaces):
        return [line for part in faces.parts for line in faces_record(part)]
    if isinstance(faces, SeedRange):
        return [f"seeds {faces.first}-{faces.last}"]
    digest = hashlib.sha256()
    for face in faces:
        digest.update(f"{face.name}|{face.group}|".encode() + face.z.tobytes() + face.label.tobytes())
    return [f"table of {len(faces)} {digest.hexdigest()}"]
