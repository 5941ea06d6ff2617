"""A render job as a JSON file, for jobs that are kept, shared or written by programs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ohlora.bundle import Bundle
from ohlora.errors import BadRequest
from ohlora.faces import JoinedFaces, SeedRange, load_faces
from ohlora.params import Expression, Face, Ombre
from ohlora.render.job import Look, OutputFormat, RenderJob


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class OmbreEntry(_Strict):
    color: float
    height: float = 0.7
    grad_height: float = 0.5


class ExpressionEntry(_Strict):
    eyes: float = 0.0
    mouth: float = 0.0
    pose: float = 0.0


class LookEntry(_Strict):
    expression: ExpressionEntry = ExpressionEntry()
    ombre: OmbreEntry | None = None


class JobFile(_Strict):
    """faces as on the command line; looks: an explicit list, one picture per face and look."""

    faces: list[str] = Field(min_length=1)
    looks: list[LookEntry] = Field(default=[LookEntry()], min_length=1)
    psi: float = 1.0
    truncation_layers: int = 0
    format: str = "jpeg"
    quality: int = 95
    rounding: str = "truncate"


def read_job_file(path: Path, label_size: int, bundle: Bundle) -> RenderJob:
    """Read and check a job. Face files are relative to the job file. Raises BadRequest naming file and field."""
    try:
        entry = JobFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadRequest(f"cannot read the job file {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BadRequest(f"{path}: {where}: {first['msg']}") from error
    beside = [str(path.parent / spec) if ".csv" in spec or ".np" in spec else spec for spec in entry.faces]
    looks = tuple(
        Look(
            Expression(**look.expression.model_dump()),
            None if look.ombre is None else Ombre(**look.ombre.model_dump()),
        )
        for look in entry.looks
    )
    output = OutputFormat(entry.format, entry.quality, entry.rounding)
    return RenderJob(load_faces(beside, label_size, bundle), looks, output, entry.psi, entry.truncation_layers)


def faces_record(faces: Sequence[Face]) -> list[str]:
    """What identifies the faces of a job: seed ranges as they are, tables by a hash of their content."""
    if isinstance(faces, JoinedFaces):
        return [line for part in faces.parts for line in faces_record(part)]
    if isinstance(faces, SeedRange):
        return [f"seeds {faces.first}-{faces.last}"]
    digest = hashlib.sha256()
    for face in faces:
        digest.update(f"{face.name}|{face.group}|".encode() + face.z.tobytes() + face.label.tobytes())
    return [f"table of {len(faces)} {digest.hexdigest()}"]
