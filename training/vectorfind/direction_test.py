"""The documented test of directions (docs/spec/vectorfind.md, section 3.8): 50 pictures of a face, strengths against
scores; of many faces, with files, resumable.

The strengths are a full grid, so that besides the correlations every property's effect on every score can be read off
the same 50 pictures by least squares: what the direction is for, and what leaks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.base.types import Rgb
from ohlora.base.values import PROPERTIES, Face
from ohlora.errors import InvalidInputError
from ohlora.faces import face_from_seed, latents_of
from ohlora.io.marking import RENDERED, Mark
from ohlora.latents.directions import Directions
from ohlora.render.job_file import faces_record
from ohlora.render.journal import Journal
from ohlora.training.directions.measure import pearson
from ohlora.training.vectorfind import report_files as files
from ohlora.training.vectorfind.identity import PEOPLE, IdentityMeter, lone_strengths
from ohlora.training.vectorfind.measuring import Measuring, Values
from ohlora.training.vectorfind.portrayer import Floats
from ohlora.training.vectorfind.settings import SearchSettings, as_json

DECIMALS = 4  # scores and correlations are reported, and scores compared, like this
BLOCK = 20  # faces whose unmodified pictures are scored at once, for their groups
CODE_DECIMALS = 4  # codes are tested as they are written, so that a table reproduces its test
# Settings that change what a test measures or writes.
TESTED = (
    "space", "groups", "eyes", "mouth", "pose", "limits", "test_seed", "grids", "files", "identity", "orientation",
)  # fmt: skip


def triples(settings: SearchSettings) -> Values:
    """Strengths (eyes, mouth, pose) of the test pictures [50,3]: mouth outermost, then eyes, pose innermost."""
    rows = product(settings.mouth, settings.eyes, settings.pose)
    return np.array([(eyes, mouth, pose) for mouth, eyes, pose in rows], np.float64)


def correlation(first: Values, second: Values) -> float:
    """Of two rows; pictures without a score take no part; 0 where one side does not vary."""
    known = ~(np.isnan(first) | np.isnan(second))
    return pearson(first[known], second[known]) if known.sum() > 2 else 0.0


@dataclass(frozen=True)
class Tested:
    """One face: scores [50,C] of its pictures, these, and the unmodified one."""

    scores: Values
    images: Rgb
    original: Rgb


@dataclass(frozen=True)
class CaseFigures:
    """What a face's 50 scores say. correlation [3]: strength against score of the same property. effects [3,C]: change
    of each score, in standard deviations among samples, for a strength of 1 of eyes, mouth, pose.
    """

    correlation: Values
    effects: Values

    @property
    def leakage(self) -> Values:
        """[3]: mean absolute effect on the other two properties, as a share of the property's own."""
        return leakage(self.effects)

    def passes(self, limits: Sequence[float]) -> bool:
        return bool((np.abs(self.correlation) >= np.asarray(limits)).all())


def leakage(effects: Values) -> Values:
    """effects [3, 3 or more] of eyes, mouth, pose (rows) on the scores, these three first -> [3]: mean absolute effect
    on the other two, as a share of the own one.
    """
    size = np.abs(effects[:, : len(PROPERTIES)])
    own = np.diag(size)
    return np.asarray((size.sum(1) - own) / (len(PROPERTIES) - 1) / np.maximum(own, 1e-9))


def examine_face(measuring: Measuring, directions: Directions, start: Floats, face: Face, strengths: Values) -> Tested:
    """Draw and score one face: start [D] is its unmodified vector in directions.space."""
    space, portrayer = directions.space, measuring.portrayer
    edited = (start.astype(np.float64) + strengths @ directions.moves(start, face)).astype(np.float32)
    images = portrayer.images(np.concatenate([portrayer.finish(v, space) for v in (edited, start[None])]))
    scores = np.round(measuring.scorer.score(images, measuring.settings.columns), DECIMALS)
    return Tested(scores[:-1], images[:-1], images[-1])


def figures(strengths: Values, scores: Values, deviation: Values) -> CaseFigures:
    """strengths [P,3], scores [P,C] with the three properties first, deviation [C] of each score among samples."""
    correlations = np.array([correlation(strengths[:, i], scores[:, i]) for i in range(len(PROPERTIES))])
    design = np.concatenate([strengths, np.ones((len(strengths), 1))], 1)
    effects = np.zeros((len(PROPERTIES), scores.shape[1]))
    for column in range(scores.shape[1]):
        known = ~np.isnan(scores[:, column])
        if known.sum() > design.shape[1]:
            solution = np.linalg.lstsq(design[known], scores[known, column], rcond=None)[0]
            effects[:, column] = solution[: len(PROPERTIES)] / max(float(deviation[column]), 1e-9)
    return CaseFigures(correlations, effects)


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
            "mark": True,
        }
        folder = self.out if faces is None else self.out / report
        rows: list[dict[str, Any]] = []
        with Journal.open(folder, request, restart=restart, former={"mark": False}) as journal:
            done, mark = journal.finished, RENDERED if journal.settings["mark"] else None
            for first in range(0, total, BLOCK):
                block = list(range(first, min(first + BLOCK, total)))
                todo = [case for case in block if case not in done or not journal.verify(done[case])]
                prepared = self._prepared(block, faces) if todo else {}
                for case in block:
                    if case in todo:
                        rows.append(self._case(case, *prepared[case], folder, mark))
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
        codes = np.concatenate(latents_of(self._face(row["case"], faces) for row in listed), 1)
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
        z, label = latents_of(given)
        start = self.portrayer.start(z, label, self.settings.space)
        if self.settings.groups and any(face.group is None for face in given):
            images = self.portrayer.images(self.portrayer.start(z, label, "w"))
            groups = self.measuring.groups(self.measuring.scorer.score(images, self.settings.columns))
            given = [
                face if face.group is not None else Face(face.z, face.label, face.name, group, face.source)
                for face, group in zip(given, groups, strict=True)
            ]
        return {case: (face, row) for case, face, row in zip(block, given, start, strict=True)}

    def _case(self, case: int, face: Face, start: Floats, folder: Path, mark: Mark | None) -> dict[str, Any]:
        settings, columns = self.settings, self.settings.columns
        names = files.CaseNames.of(case, settings.report_layout)
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
            files.write_pictures(folder, names, images, made.original, mark)
        if settings.grids == "all" or (settings.grids == "passed" and passed):
            across = len(settings.eyes) * len(settings.pose)
            files.write_grid(folder, names, images, made.original, across, mark)
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
