"""Directions tested on many faces, with files, resumable: what `direction_test` says of one face, for a whole run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.base.values import PROPERTIES, Face
from ohlora.errors import InvalidInputError
from ohlora.faces import face_from_seed
from ohlora.latents.directions import Directions
from ohlora.render.job_file import faces_record
from ohlora.render.journal import Journal
from ohlora.training.vectorfind import report_files as files
from ohlora.training.vectorfind.direction_test import DECIMALS, examine_face, figures, leakage, triples
from ohlora.training.vectorfind.identity import PEOPLE, IdentityMeter, lone_strengths
from ohlora.training.vectorfind.measuring import Measuring
from ohlora.training.vectorfind.portrayer import Floats
from ohlora.training.vectorfind.settings import as_json

BLOCK = 20  # faces whose unmodified pictures are scored at once, for their groups
CODE_DECIMALS = 4  # codes are tested as they are written, so that a table reproduces its test
# Settings that change what a test measures or writes.
TESTED = (
    "space", "groups", "eyes", "mouth", "pose", "limits", "test_seed", "grids", "files", "identity", "orientation",
)  # fmt: skip


@dataclass(frozen=True)
class TestResult:
    """rows: of test_result.csv. statistics: of test_statistics.csv and more. skipped: cases without directions."""

    rows: list[dict[str, Any]]
    statistics: dict[str, Any]
    skipped: int


@dataclass
class DirectionTester:
    """Tests `directions` on faces, one journal row each. out: the run's folder."""

    measuring: Measuring
    directions: Directions
    out: Path

    def __post_init__(self) -> None:
        self.settings, self.portrayer = self.measuring.settings, self.measuring.portrayer
        self.strengths = triples(self.settings)
        self.deviation = self.measuring.people.deviations(self.settings.columns)

    @cached_property
    def meter(self) -> IdentityMeter:
        z, label = self.measuring.faces(PEOPLE)
        return IdentityMeter(self.portrayer.images(self.portrayer.start(z, label, "w")))

    def run(
        self,
        faces: Sequence[Face] | None = None,
        *,
        restart: bool = False,
        advance: Callable[[int], None] = lambda cases: None,
    ) -> TestResult:
        """Test `faces` (chosen ones, kept groups), or random codes of the settings, until stop_after have passed.

        Raises InvalidInputError for a folder of another test, OutputError when a file cannot be written.
        """
        settings, report = self.settings, files.REPORT if faces is None else files.FINAL_REPORT
        total = settings.codes if faces is None else len(faces)
        request = {
            "kind": "vectorfind-test",
            "directions": self.directions.sha256,
            "generator": [self.portrayer.sha256, self.portrayer.engine],
            "scorer": self.measuring.scorer.identity,
            "cutoffs": list(self.measuring.people.cutoffs),
            "deviation": [round(float(value), 6) for value in self.deviation],
            "faces": None if faces is None else faces_record(faces),
            **{name: value for name, value in as_json(settings).items() if name in TESTED},
        }
        folder = self.out if faces is None else self.out / report
        rows: list[dict[str, Any]] = []
        with Journal.open(folder, request, restart=restart) as journal:
            done = journal.finished
            for first in range(0, total, BLOCK):
                block = list(range(first, min(first + BLOCK, total)))
                todo = [case for case in block if case not in done or not journal.verify(done[case])]
                prepared = self._prepared(block, faces) if todo else {}
                for case in block:
                    if case in todo:
                        rows.append(self._case(case, *prepared[case], folder))
                        journal.record(case, rows[-1])
                    else:
                        rows.append(dict(done[case]))
                    advance(1)
                    passed = sum(row["passed"] == "O" for row in rows)
                    if settings.stop_after and passed >= settings.stop_after and faces is None:
                        return self._finished(rows, report, faces)
        return self._finished(rows, report, faces)

    def _finished(self, rows: list[dict[str, Any]], report: str, faces: Sequence[Face] | None) -> TestResult:
        listed = [row for row in rows if row["passed"]]
        if not listed:
            raise InvalidInputError(
                f"none of {len(rows)} faces has a group with directions: take more samples or fewer groups"
            )
        given = [self._face(row["case"], faces) for row in listed]
        codes = np.stack([np.concatenate([face.z, face.label]) for face in given])
        found = files.write_report(self.out / report, self.settings.report_layout, listed, codes)
        return TestResult(listed, found, len(rows) - len(listed))

    def _face(self, case: int, faces: Sequence[Face] | None) -> Face:
        if faces is not None:
            return faces[case]
        face = face_from_seed(self.settings.test_seed + case, self.portrayer.generator.config.label_size)
        z, label = np.round(face.z, CODE_DECIMALS), np.round(face.label, CODE_DECIMALS)
        return Face(z, label, name=f"case{case:04d}", source=face.source)

    def _prepared(self, block: Sequence[int], faces: Sequence[Face] | None) -> dict[int, tuple[Face, Floats]]:
        """Face with its group, and its unmodified vector."""
        given = [self._face(case, faces) for case in block]
        z, label = np.stack([face.z for face in given]), np.stack([face.label for face in given])
        start = self.portrayer.start(z, label, self.settings.space)
        if self.settings.groups and any(face.group is None for face in given):
            images = self.portrayer.images(self.portrayer.start(z, label, "w"))
            groups = self.measuring.groups(self.measuring.scorer.score(images, self.settings.columns))
            given = [
                face if face.group is not None else Face(face.z, face.label, face.name, group, face.source)
                for face, group in zip(given, groups, strict=True)
            ]
        return {case: (face, row) for case, face, row in zip(block, given, start, strict=True)}

    def _case(self, case: int, face: Face, start: Floats, folder: Path) -> dict[str, Any]:
        settings, columns = self.settings, self.settings.columns
        names = files.CaseNames(case, settings.report_layout)
        group = self.directions.groups[0] if len(self.directions.groups) == 1 else face.group
        base: dict[str, Any] = {"case": case, "vector_no": 0, "group_name": group or "", "svm_group_name": group or ""}
        if group not in self.directions.groups:
            size = files.write_case(folder, names, self.strengths[:0], self.strengths[:0], columns)
            return {"file_name": names.result, "bytes": size, **base, "passed": ""}
        lone = lone_strengths([getattr(settings, name) for name in PROPERTIES])
        given = np.concatenate([self.strengths, lone]) if settings.identity else self.strengths
        made = examine_face(self.measuring, self.directions, start, face, given)
        count = len(self.strengths)
        scores, images = made.scores[:count], made.images[:count]
        size = files.write_case(folder, names, self.strengths, scores, columns)
        said = figures(self.strengths, scores, self.deviation)
        passed = said.passes(settings.limits)
        if settings.files:
            files.write_pictures(folder, names, images, made.original)
        if settings.grids == "all" or (settings.grids == "passed" and passed):
            files.write_grid(folder, names, images, made.original, len(settings.eyes) * len(settings.pose))
        row = base | {"passed": "O" if passed else "X"}
        for i, name in enumerate(PROPERTIES):
            row[f"{name}_corr"] = round(float(said.correlation[i]), DECIMALS)
            row[f"{name}_effect"] = round(float(said.effects[i, i]), DECIMALS)
            row[f"{name}_leakage"] = round(float(said.leakage[i]), DECIMALS)
        row["sum_abs_corr"] = round(sum(abs(row[f"{name}_corr"]) for name in PROPERTIES), DECIMALS)
        row["effects"] = np.round(said.effects, DECIMALS).tolist()
        if settings.identity:
            change = self.meter.change(made.original, made.images[count:]).reshape(len(PROPERTIES), 2).mean(1)
            row |= {f"{name}_identity": round(float(change[i]), DECIMALS) for i, name in enumerate(PROPERTIES)}
        return {"file_name": names.result, "bytes": size, **row}


def overall_leakage(rows: Sequence[dict[str, Any]]) -> NDArray[np.float64]:
    """[3]: `leakage` of the mean absolute effects of all faces."""
    return leakage(np.abs(np.array([row["effects"] for row in rows])).mean(0))
