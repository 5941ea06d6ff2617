"""Runs stages in order, skips those whose inputs did not change, goes on with those that were interrupted."""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ohlora.base.atomic import explain_os_error
from ohlora.errors import InvalidInputError, OhloraError
from ohlora.render.journal import Journal
from ohlora.training.pipeline.cache import Done, StageFolder, content_hash, stage_key
from ohlora.training.pipeline.graph import Graph, Stage
from ohlora.training.pipeline.manifest import describe
from ohlora.training.pipeline.settings import Section
from ohlora.training.pipeline.work import Note, Work

COMMAND = "ohlora train pipeline"
CACHED, RAN, RESUMED, WOULD_RUN, WOULD_RESUME = "cached", "run", "resumed", "would run", "would go on"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass
class StageState:
    """How a stage stands in this call. done is None while its outputs are not those of its settings; why says why."""

    stage: Stage
    state: str = ""
    why: str = ""
    done: Done | None = None
    seconds: float = 0.0  # of this call


@dataclass
class Run:
    """A call of the pipeline in folder `out`. See `run_stages`."""

    graph: Graph
    settings: Section
    out: Path
    note: Note = lambda text: None
    states: dict[str, StageState] = field(default_factory=dict)

    def walk(self, selected: Sequence[Stage], force: Sequence[str], *, dry: bool = False) -> None:
        """Every stage in order: selected ones run unless they are cached, the others are only looked at."""
        chosen = {stage.name for stage in selected}
        for number, stage in enumerate(self.graph, 1):
            state = self.states[stage.name] = StageState(stage)
            if stage.name in chosen:
                self._one(state, f"[{number}/{len(self.graph)}] {stage.name}", stage.name in force, dry)
            else:
                self._look(state)

    def _inputs(self, stage: Stage) -> tuple[dict[str, Path], dict[str, str]] | StageState:
        """Paths and content hashes of what the stage reads, or the state of the stage that has not made it."""
        paths, hashes = {}, {}
        for name, source in stage.inputs.items():
            producer, _, output = source.partition(".")
            done = self.states[producer].done
            if done is None:
                return self.states[producer]
            if output not in done.outputs:
                raise InvalidInputError(
                    f"stage {producer} made no '{output}', which {stage.name} needs: --force {producer}"
                )
            manifest = done.outputs[output]
            paths[name], hashes[name] = self.out / producer / manifest.path, manifest.sha256
        return paths, hashes

    def _cached(self, state: StageState, hashes: Mapping[str, str]) -> str:
        """The stage's key for inputs of these hashes; sets `done` when the folder holds what it makes, or `why`."""
        folder, stage = StageFolder(self.out, state.stage.name), state.stage
        paths = {entry.setting: entry.path(self.settings) for entry in stage.external(stage.sections(self.settings))}
        contents = {setting: content_hash(path) for setting, path in paths.items() if path is not None}
        key, done = stage_key(stage, self.settings, hashes, contents), folder.done()
        if done is None:
            state.why = "not made yet"
        elif done.key != key:
            state.why = "its settings or inputs have changed"
        elif changed := folder.changed(done):
            state.why = f"{folder.path / changed} is no longer what the stage made"
        else:
            state.done, state.state = done, CACHED
        return key

    def _look(self, state: StageState) -> None:
        """A stage that is not asked for: its outputs serve when they are those of the present settings."""
        found = self._inputs(state.stage)
        if isinstance(found, StageState):
            state.why = f"{found.stage.name} comes first ({found.why})"
        elif missing := missing_external(state.stage, self.settings):
            state.why = missing
        else:
            self._cached(state, found[1])

    def _one(self, state: StageState, label: str, forced: bool, dry: bool) -> None:
        stage = state.stage
        found = self._inputs(stage)
        if isinstance(found, StageState):
            if not dry or not found.state:
                raise InvalidInputError(
                    f"stage {stage.name} needs what {found.stage.name} makes ({found.why}): run "
                    f"`{COMMAND} ... --until {stage.name}`, which makes it first"
                )
            state.state, state.why = WOULD_RUN, f"after {found.stage.name}"
            return
        paths, hashes = found
        key = self._cached(state, hashes)
        if state.done is not None and not forced:
            self.note(f"{label}: cached")
            return
        spent = None if forced else StageFolder(self.out, stage.name).started(key)
        if dry:
            state.done, state.state = None, WOULD_RUN if spent is None else WOULD_RESUME
            state.why = "forced" if forced else state.why
            return
        self.note(f"{label}: {stage.about}" + ("" if spent is None else " (goes on)"))
        self._make(state, key, paths, forced)
        state.state = RAN if spent is None else RESUMED
        self.note(f"{label}: done, {state.seconds:.1f} s")

    def _make(self, state: StageState, key: str, paths: Mapping[str, Path], forced: bool) -> None:
        stage, folder = state.stage, StageFolder(self.out, state.stage.name)
        before, began, cpu = folder.start(key, afresh=forced), time.monotonic(), time.process_time()
        sections, machine = stage.sections(self.settings), getattr(self.settings, "machine", None)
        work = Work(stage.name, folder.path, paths, sections, machine, lambda text: self.note(f"  {text}"))
        try:
            outcome = stage.run(work)
            state.seconds = time.monotonic() - began
            manifests = {name: describe(folder.path, name, output) for name, output in outcome.outputs.items()}
            timings = {"cpu_seconds": round(time.process_time() - cpu, 1), **outcome.timings}
            told = {"figures": outcome.figures, "timings": timings, "exhibits": work.shown.as_dict()}
            state.done = Done(key=key, outputs=manifests, **plain(told), seconds=before + state.seconds)
            folder.finish(state.done)
        except OSError as error:
            if error.errno in DISK_FULL:
                raise explain_os_error(folder.path, error) from error
            raise
        except OhloraError as error:
            raise type(error)(f"stage {stage.name}: {error}") from error
        except KeyboardInterrupt:
            spent = before + time.monotonic() - began
            folder.spend(key, spent)
            self.note(f"stopped in {stage.name} after {spent:.1f} s: the same command goes on there")
            raise


def plain(value: Any) -> Any:
    """JSON values; a number that is none (NaN, infinite) is None."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if hasattr(value, "item"):  # NumPy's numbers
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def missing_external(stage: Stage, settings: Section) -> str:
    """What is wrong with the first file of the user's that the stage reads; empty when all is well."""
    for external in stage.external(stage.sections(settings)):
        path = external.path(settings)
        if path is None:
            return f"the setting {external.setting} names no file; {external.made_by}"
        if not path.exists():
            return f"{path} (setting {external.setting}) is not there; {external.made_by}"
        try:
            external.check(path)
        except OhloraError as error:
            return f"{path} (setting {external.setting}) cannot be used: {error}; {external.made_by}"
    return ""


def require_externals(stages: Sequence[Stage], settings: Section) -> None:
    """Raises InvalidInputError naming every file that is missing, before any hour is spent."""
    found = [(stage.name, missing_external(stage, settings)) for stage in stages]
    if lines := [f"stage {name}: {text}" for name, text in found if text]:
        raise InvalidInputError("\n  ".join(["some required input files are missing:", *lines]))


def run_stages(
    graph: Graph,
    settings: Section,
    out: Path,
    *,
    selected: Sequence[Stage] | None = None,
    force: Sequence[str] = (),
    dry: bool = False,
    note: Note = lambda text: None,
    opened: Callable[[], object] = lambda: None,
    finished: Callable[[dict[str, StageState]], object] = lambda states: None,
) -> dict[str, StageState]:
    """Bring the selected stages (default: all) up to date in folder `out`; returns how every stage stands.

    force: make these again though nothing changed. dry: make nothing, only say what would be done. opened, finished:
    called while the folder is held, before the first stage and after the last.
    Raises InvalidInputError before anything runs when a user's file is missing or unusable, or when another process
    works in the folder; and when a stage that is not selected has not made what a selected one needs.
    """
    selected = list(graph) if selected is None else selected
    unselected = [name for name in force if name not in {stage.name for stage in selected}]
    if unselected:
        graph.named(unselected[0], "--force")
        raise InvalidInputError(f"--force {unselected[0]}: this stage is not among those asked for")
    require_externals(selected, settings)
    run = Run(graph, settings, out, note)
    if dry:
        run.walk(selected, force, dry=True)
        return run.states
    with Journal.open(out, {"command": COMMAND}) as journal:
        opened()
        try:
            run.walk(selected, force)
        finally:
            record_call(journal, run.states)
        finished(run.states)
    return run.states


def record_call(journal: Journal, states: Mapping[str, StageState]) -> None:
    """One row of the run's history: what this call did."""
    rows = {name: {"state": state.state, "seconds": round(state.seconds, 1)} for name, state in states.items()}
    made = {name: row for name, row in rows.items() if row["state"] and row["state"] != CACHED}
    journal.record(len(journal.finished), {"stages": made})
