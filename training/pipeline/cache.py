"""Whether a stage has to run: its key, and what stands in its folder.

    RUN/STAGE/...                  what the stage makes
    RUN/STAGE/.stage/started.json  the key it is being made for, and the seconds so far
    RUN/STAGE/.stage/done.json     the key it was made for, outputs with their hashes, figures; there only when finished

The key covers the stage's settings, its version and the content of everything it reads. Machine settings and the paths
of external files are no part of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from ohlora.base.atomic import explain_os_error, make_folder, write_json
from ohlora.bundle.files import file_sha256
from ohlora.errors import InvalidInputError
from ohlora.training.pipeline.graph import Stage
from ohlora.training.pipeline.manifest import Manifest, changed_file, key_of
from ohlora.training.pipeline.settings import Section

T = TypeVar("T")

RECORD = ".stage"
KEYLESS = "keyless"  # json_schema_extra of a setting that does not decide what is made


@dataclass(frozen=True, kw_only=True)
class Done:
    """The record of a finished stage."""

    format: Literal[1] = 1
    key: str
    outputs: dict[str, Manifest]
    figures: dict[str, Any]
    timings: dict[str, Any]
    exhibits: dict[str, Any]
    seconds: float


@dataclass(frozen=True)
class Started:
    """The record of an unfinished stage: the key it is being made for, the seconds so far."""

    key: str
    seconds: float = 0.0


def deciding(settings: Section, name: str) -> Any:
    """The values of section `name` that decide results: those of `Section.effective`, or all but the KEYLESS ones."""
    found, section = settings.effective(name), getattr(settings, name)
    if found is not None or not isinstance(section, BaseModel):
        return section if found is None else found
    extras = {name: field.json_schema_extra for name, field in type(section).model_fields.items()}
    free = {name for name, extra in extras.items() if isinstance(extra, Mapping) and extra.get(KEYLESS)}
    return section.model_dump(mode="json", exclude=free)


def stage_key(stage: Stage, settings: Section, inputs: Mapping[str, str], externals: Mapping[str, str]) -> str:
    """inputs: content hash by the stage's own name for it. externals: content hash by setting."""
    return key_of(
        {
            "stage": stage.name,
            "version": stage.version,
            "settings": {name: deciding(settings, name) for name in stage.settings},
            "inputs": dict(inputs),
            "external": dict(externals),
        }
    )


def content_hash(path: Path) -> str:
    """Content hash of a user's file, or of a folder's files; bundle.json stands for those of a bundle."""
    if not path.is_dir():
        return file_sha256(path)
    if (path / "bundle.json").is_file():
        return file_sha256(path / "bundle.json")
    return key_of({file.name: file_sha256(file) for file in sorted(path.iterdir()) if file.is_file()})


class StageFolder:
    """RUN/STAGE and its record."""

    def __init__(self, run: Path, name: str) -> None:
        self.name, self.path = name, run / name
        self.done_file, self.started_file = (self.path / RECORD / f"{what}.json" for what in ("done", "started"))

    def done(self) -> Done | None:
        """The record of a finished stage; None when there is none that can be read."""
        return _read(Done, self.done_file)

    def changed(self, done: Done) -> str | None:
        """A file that is no longer what the stage made; None when all are."""
        found = (changed_file(self.path, manifest) for manifest in done.outputs.values())
        return next((name for name in found if name is not None), None)

    def started(self, key: str) -> float | None:
        """Seconds that went into an unfinished stage of this key; None when there is nothing to go on with."""
        started = _read(Started, self.started_file)
        return None if started is None or started.key != key else started.seconds

    def start(self, key: str, *, afresh: bool = False) -> float:
        """Prepare the folder for making `key`; returns the seconds spent before. What is of another key is deleted.

        Raises InvalidInputError for a folder that no stage made.
        """
        spent = None if afresh else self.started(key)
        ours = (self.path / RECORD).is_dir()
        try:
            if self.path.exists() and not ours and any(self.path.iterdir()):
                raise InvalidInputError(
                    f"{self.path} is not empty and was not made by this pipeline: choose another --out"
                )
            self.done_file.unlink(missing_ok=True)
            if spent is None and ours:
                # The record goes last: killed in between, the folder is still known to be ours.
                self.started_file.unlink(missing_ok=True)
                for entry in self.path.iterdir():
                    if entry.name != RECORD:
                        shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        except OSError as error:
            raise explain_os_error(self.path, error) from error
        make_folder(self.path / RECORD)
        self.spend(key, spent or 0.0)
        return spent or 0.0

    def spend(self, key: str, seconds: float) -> None:
        """Record how long the unfinished stage has taken so far."""
        write_json(self.started_file, {"key": key, "seconds": round(seconds, 3)}, indent=None)

    def finish(self, done: Done) -> None:
        content = {**asdict(done), "seconds": round(done.seconds, 3)}
        for name, manifest in done.outputs.items():
            content["outputs"][name]["sha256"] = manifest.sha256  # for people
        write_json(self.done_file, content)
        self.started_file.unlink(missing_ok=True)


def _read(kind: type[T], path: Path) -> T | None:
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
