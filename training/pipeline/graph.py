"""Stages as data: what each needs, which settings decide it, what runs it; and which of them a request is about."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ohlora.base.text import near
from ohlora.errors import InvalidInputError
from ohlora.training.pipeline.settings import Section
from ohlora.training.pipeline.work import Outcome, Work


@dataclass(frozen=True)
class External:
    """A file of the user's that a stage reads.

    setting: "section.field" that names it. made_by: what to do when it is missing, in words with the command.
    check: looks into the file; raises InvalidInputError or CheckpointError for an unusable one.
    """

    setting: str
    made_by: str
    check: Callable[[Path], Any] = lambda path: None

    def path(self, settings: Section) -> Path | None:
        section, _, field = self.setting.partition(".")
        value = getattr(getattr(settings, section), field)
        return None if value is None else Path(value)


@dataclass(frozen=True)
class Stage:
    """One stage of the chain.

    inputs: "STAGE.OUTPUT" by the name the stage uses for it. settings: sections that decide what it makes.
    version: raise it when the code makes something else for the same settings. external: files of the user.
    """

    name: str
    about: str
    run: Callable[[Work], Outcome]
    inputs: Mapping[str, str] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    version: int = 1
    external: Callable[[Mapping[str, Any]], Iterable[External]] = lambda sections: ()

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the stages whose outputs it reads."""
        return tuple(dict.fromkeys(source.split(".")[0] for source in self.inputs.values()))

    def sections(self, settings: Section) -> dict[str, Any]:
        return {name: getattr(settings, name) for name in self.settings}


class Graph:
    """The stages in order. Raises ValueError for a table that is not in order or names what does not exist."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = {stage.name: stage for stage in stages}
        if len(self.stages) != len(stages):
            raise ValueError("two stages have one name")
        seen: set[str] = set()
        for stage in stages:
            if missing := [name for name in stage.needs if name not in seen]:
                raise ValueError(f"stage {stage.name} needs {missing[0]}, which does not come before it")
            seen.add(stage.name)

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages.values())

    def __len__(self) -> int:
        return len(self.stages)

    def named(self, name: str, option: str) -> Stage:
        """Raises InvalidInputError naming the nearest stage."""
        if name not in self.stages:
            raise InvalidInputError(
                f"{option}: there is no stage '{name}'{near(name, self.stages)}; --list shows all of them"
            )
        return self.stages[name]

    def before(self, name: str) -> set[str]:
        """All stages that `name` needs, directly or not."""
        found: set[str] = set()
        for need in self.stages[name].needs:
            found |= {need} | self.before(need)
        return found

    def after(self, name: str) -> set[str]:
        """All stages that need `name`, directly or not."""
        return {other for other in self.stages if name in self.before(other)}

    def select(
        self,
        *,
        only: Sequence[str] = (),
        until: str | None = None,
        start: str | None = None,
        skip: Sequence[str] = (),
    ) -> list[Stage]:
        """The stages a request is about, in order.

        only: these alone. until: this one and what it needs. start: this one and what needs it. Together, what all of
        them leave. skip: leave these out. Raises InvalidInputError for unknown names, nothing left, or a stage that is
        left out although one that stays needs it.
        """
        chosen = set(self.stages)
        if only:
            chosen &= {self.named(name, "--only").name for name in only}
        if until is not None:
            chosen &= {self.named(until, "--until").name} | self.before(until)
        if start is not None:
            chosen &= {self.named(start, "--from").name} | self.after(start)
        for name in skip:
            self.named(name, "setting 'skip'")
            users = [other for other in self.stages if name in self.stages[other].needs and other not in skip]
            if name in chosen and (needed := [other for other in users if other in chosen]):
                raise InvalidInputError(f"setting 'skip': {needed[0]} needs {name}; leave out both or neither")
        chosen -= set(skip)
        if not chosen:
            raise InvalidInputError("no stage is left to run: check --only, --until, --from and the setting 'skip'")
        return [stage for stage in self if stage.name in chosen]
