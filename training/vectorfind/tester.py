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
from ohlora.training.vectorfind.calibrate import measured_faces, named_groups
from ohlora.training.vectorfind.direction_test import DECIMALS, examine_face, figures, leakage, triples
from ohlora.training.vectorfind.find import Population
from ohlora.training.vectorfind.identity import PEOPLE, IdentityMeter, lone_strengths
from ohlora.training.vectorfind.portrayer import Floats, Portrayer
from ohlora.training.vectorfind.scorers import Scorer
from ohlora.training.vectorfind.settings import SearchSettings, as_json

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

    portrayer: Portrayer
    scorer: Scorer
    people: Population
    settings: SearchSettings
    directions: Directions
    out: Path

    def __post_init__(self) -> None:
        self.strengths = triples(self.settings)
        self.columns = self.settings.columns
        self.deviation = self.people.deviation[[self.people.columns.index(name) for name in self.columns]]

    @cached_property
    def meter(self) -> IdentityMeter:
        z, label = measured_faces(self.settings, PEOPLE, self.portrayer.generator.config.label_size)
        return IdentityMeter(self.portrayer.images(self.portrayer.start(z, label, "w")))

    def run(
        self,
        faces: Sequence[Face] | None = None,
        *,
        report: str = files.REPORT,
        restart: bool = False,
        advance: Callable[[int], None] = lambda cases: None,
    ) -> TestResult:
        """Test `faces` (chosen ones, kept groups), or random codes of the settings, until stop_after have passed.

        Raises InvalidInputError for a folder of another test, OutputError when a file cannot be written.
        """
        settings = self.settings
        total = settings.codes if faces is None else len(faces)
        request = {
            "kind": "vectorfind-test",
            "directions": self.directions.sha256,
            "generator": [self.portrayer.sha256, self.portrayer.engine],
            "scorer": self.scorer.identity,
            "cutoffs": list(self.people.cutoffs),
            "deviation": [round(float(value), 6) for value in self.deviation],
            "faces": None if faces is None else faces_record(faces),
            **{name: value for name, value in as_json(settings).items() if name in TESTED},
        }
        folder = self.out if faces is None else self.out / report
        rows: dict[int, dict[str, Any]] = {}
        skipped, passed = 0, 0
        with Journal.open(folder, request, restart=restart) as journal:
            done = journal.finished
            for first in range(0, total, BLOCK):
                block = list(range(first, min(first + BLOCK, total)))
                todo = [case for case in block if case not in done or not journal.verify(done[case])]
                prepared = self._prepared(block, faces) if todo else {}
                for case in block:
                    if case in todo:
                        face, start = prepared[case]
                        row = self._case(case, face, start, folder)
                        journal.record(case, row)
                    else:
                        row = dict(done[case])
                    rows[case] = row
                    skipped += row["passed"] == ""
                    passed += row["passed"] == "O"
                    advance(1)
                    if settings.stop_after and passed >= settings.stop_after and faces is None:
                        return self._finished(rows, report, skipped, faces)
        return self._finished(rows, report, skipped, faces)

    def _finished(
        self, rows: dict[int, dict[str, Any]], report: str, skipped: int, faces: Sequence[Face] | None
    ) -> TestResult:
        listed = [rows[case] for case in sorted(rows) if rows[case]["passed"]]
        if not listed:
            raise InvalidInputError(
                f"none of {len(rows)} faces has a group with directions: take more samples or fewer groups"
            )
        given = [self._face(row["case"], faces) for row in listed]
        codes = np.stack([np.concatenate([face.z, face.label]) for face in given])
        found = files.write_report(self.out / report, self.settings.report_layout, listed, codes)
        return TestResult(listed, found, skipped)

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
            groups = named_groups(self.scorer.score(images, self.columns), self.people, self.settings, self.columns)
            given = [
                face if face.group is not None else Face(face.z, face.label, face.name, group, face.source)
                for face, group in zip(given, groups, strict=True)
            ]
        return {case: (face, row) for case, face, row in zip(block, given, start, strict=True)}

    def _case(self, case: int, face: Face, start: Floats, folder: Path) -> dict[str, Any]:
        names = files.CaseNames(case, self.settings.report_layout)
        group = self.directions.groups[0] if len(self.directions.groups) == 1 else face.group
        base: dict[str, Any] = {"case": case, "vector_no": 0, "group_name": group or "", "svm_group_name": group or ""}
        if group not in self.directions.groups:
            data = files.write_case(folder, names, self.strengths[:0], self.strengths[:0], self.columns)
            return {"file_name": names.result, "bytes": len(data), **base, "passed": ""}
        lone = lone_strengths([getattr(self.settings, name) for name in PROPERTIES])
        given = np.concatenate([self.strengths, lone]) if self.settings.identity else self.strengths
        made = examine_face(self.portrayer, self.scorer, self.directions, start, face, given, self.columns)
        count = len(self.strengths)
        data = files.write_case(folder, names, self.strengths, made.scores[:count], self.columns)
        said = figures(self.strengths, made.scores[:count], self.deviation)
        passed = said.passes(self.settings.limits)
        if self.settings.files:
            files.write_pictures(folder, names, made.images[:count], made.original)
        if self.settings.grids == "all" or (self.settings.grids == "passed" and passed):
            columns = len(self.settings.eyes) * len(self.settings.pose)
            files.write_grid(folder, names, made.images[:count], made.original, columns)
        row = base | {"passed": "O" if passed else "X"}
        for i, name in enumerate(PROPERTIES):
            row[f"{name}_corr"] = round(float(said.correlation[i]), DECIMALS)
            row[f"{name}_effect"] = round(float(said.effects[i, i]), DECIMALS)
            row[f"{name}_leakage"] = round(float(said.leakage[i]), DECIMALS)
        row["sum_abs_corr"] = round(sum(abs(row[f"{name}_corr"]) for name in PROPERTIES), DECIMALS)
        row["effects"] = np.round(said.effects, DECIMALS).tolist()
        if self.settings.identity:
            change = self.meter.change(made.original, made.images[count:]).reshape(len(PROPERTIES), 2).mean(1)
            row |= {f"{name}_identity": round(float(change[i]), DECIMALS) for i, name in enumerate(PROPERTIES)}
        return {"file_name": names.result, "bytes": len(data), **row}


def overall_leakage(rows: Sequence[dict[str, Any]]) -> NDArray[np.float64]:
    """[3]: `leakage` of the mean absolute effects of all faces."""
    return leakage(np.abs(np.array([row["effects"] for row in rows])).mean(0))
