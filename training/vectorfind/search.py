"""One search from beginning to end: samples, directions, test. Every step goes on where a stopped run was."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ohlora.base.atomic import write_json
from ohlora.base.values import PROPERTIES, Face
from ohlora.bundle.files import file_sha256
from ohlora.latents.directions import FILE_NAME, Directions, read_directions, write_directions
from ohlora.training.loop.run_folder import locked_folder
from ohlora.training.vectorfind import report_files as files
from ohlora.training.vectorfind.calibrate import calibrated
from ohlora.training.vectorfind.direction_test import DirectionTester, TestResult, overall_leakage
from ohlora.training.vectorfind.find import find_directions
from ohlora.training.vectorfind.measuring import Measuring, population
from ohlora.training.vectorfind.portrayer import Portrayer
from ohlora.training.vectorfind.samples import SampleStore, draw_samples
from ohlora.training.vectorfind.scorers import Scorer, require_columns
from ohlora.training.vectorfind.settings import SearchSettings, as_json
from ohlora.training.vectorfind.tsne import plot_extremes

SUMMARY = "vectorfind.json"
SAMPLES = "samples"
TESTED_DIRECTIONS = "tested.safetensors"
# What a test alone depends on: changing it does not find directions anew.
LATER = (
    "eyes", "mouth", "pose", "limits", "codes", "stop_after", "grids", "files", "identity", "tsne",
)  # fmt: skip

Note = Callable[[str], None]
Advance = Callable[[str, int], None]  # (what is counted, how many more are done)


@dataclass(frozen=True)
class SearchResult:
    """out: the run's folder. summary: contents of vectorfind.json. directions: in run-time orientation."""

    out: Path
    summary: dict[str, Any]
    directions: Directions
    test: TestResult


def run_search(
    portrayer: Portrayer,
    scorer: Scorer,
    out: Path | str,
    settings: SearchSettings,
    *,
    source: str = "vectorfind",
    samples: Path | str | None = None,
    faces: Sequence[Face] | None = None,
    restart: bool = False,
    note: Note = lambda text: None,
    advance: Advance = lambda what, count: None,
) -> SearchResult:
    """Draw samples, find directions, test them; all files below `out`.

    samples: a folder shared by several searches of one generator and scorer; all scores are stored there. faces: chosen
    faces, tested in place of random codes (report: final_vector_test_report). source: how the directions are called.
    Raises InvalidInputError for settings that generator and scorer do not have, or a folder of another search or
    that another process works in.
    """
    out = Path(out)
    with locked_folder(out):
        require_columns(scorer, settings.columns)
        portrayer.size(settings.space)
        started = time.perf_counter()
        columns = settings.columns if samples is None else scorer.columns
        store = draw_samples(
            portrayer,
            scorer,
            out / SAMPLES if samples is None else samples,
            count=settings.samples,
            spaces=(settings.space,),
            columns=columns,
            first_seed=settings.first_seed,
            restart=restart and samples is None,  # what others share is not this search's to throw away
            advance=lambda count: advance("samples", count),
        )
        measuring = Measuring(portrayer, scorer, settings, population(store, settings))
        sampled = time.perf_counter()
        tested, facts = _directions(measuring, store, out, source, restart, note)
        runtime = read_directions(out / FILE_NAME)
        found = time.perf_counter()
        if settings.tsne:
            plot_extremes(out, store, measuring.people, settings, note)
        tester = DirectionTester(measuring, tested, out)
        result = tester.run(faces, restart=restart, advance=lambda count: advance("faces", count))
        summary = {
            "source": source,
            "space": settings.space,
            "report": files.REPORT if faces is None else files.FINAL_REPORT,
            "generator_sha256": portrayer.sha256,
            "engine": portrayer.engine,
            "scorer": scorer.kind,
            "settings": as_json(settings),
            "cutoffs": list(measuring.people.cutoffs),
            "groups": measuring.people.group_sizes(),
            "directions": facts,
            "test": {
                "faces": len(result.rows),
                "without_directions": result.skipped,
                **result.statistics,
                "leakage": dict(zip(PROPERTIES, np.round(overall_leakage(result.rows), 4).tolist(), strict=True)),
            },
            "seconds": {
                "samples": round(sampled - started, 1),
                "directions": round(found - sampled, 1),
                "test": round(time.perf_counter() - found, 1),
            },
        }
        write_json(out / SUMMARY, summary)
        return SearchResult(out, summary, runtime, result)


def _directions(
    measuring: Measuring, store: SampleStore, out: Path, source: str, restart: bool, note: Note
) -> tuple[Directions, dict[str, Any]]:
    """Directions as they are tested, and the report; those of an earlier run of the same search are taken over."""
    settings, portrayer, scorer = measuring.settings, measuring.portrayer, measuring.scorer
    deciding = {name: value for name, value in as_json(settings).items() if name not in LATER}
    text = json.dumps(
        [deciding, source, portrayer.sha256, portrayer.engine, scorer.identity, store.count], sort_keys=True
    )
    key = hashlib.sha256(text.encode()).hexdigest()
    record = out / "directions.json"
    if not restart and (facts := _facts_of(record, key)) is not None:
        return read_directions(out / TESTED_DIRECTIONS), facts
    found = find_directions(store, measuring, note)
    if settings.strength:
        found = calibrated(found, measuring)
    tested = found.directions(source, portrayer.sha256, settings.space, orientation=settings.orientation)
    write_directions(out / TESTED_DIRECTIONS, tested)
    write_directions(out / FILE_NAME, found.directions(source, portrayer.sha256, settings.space))
    files.write_vectors(out, tested)
    hashes = {name: file_sha256(out / name) for name in (TESTED_DIRECTIONS, FILE_NAME)}
    write_json(record, {"key": key, "files": hashes, "facts": found.facts})
    return tested, found.facts


def _facts_of(record: Path, key: str) -> dict[str, Any] | None:
    """The report of directions that were found for this key and are there unharmed."""
    try:
        known = json.loads(record.read_text(encoding="utf-8"))
        same = known["key"] == key and all(file_sha256(record.parent / n) == h for n, h in known["files"].items())
        return dict(known["facts"]) if same else None
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
