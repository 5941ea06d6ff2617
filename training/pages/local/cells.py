"""Decisions of people in several tabs: the last write of a cell wins, each tab can undo its own, nothing is guessed.

A cell is one attribute of one numbered thing. Where it is kept, and how it reaches the disk, is the subclass's.
"""

from __future__ import annotations

import os
import threading
from abc import abstractmethod
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from ohlora.base.atomic import lock_file
from ohlora.base.closing import Closing
from ohlora.base.reading import read_object
from ohlora.errors import InvalidInputError, OutputError, one_line

REMEMBERED = 10_000  # changes that can be undone

V = TypeVar("V")
T = TypeVar("T")


@dataclass(frozen=True)
class Cell(Generic[V]):
    """A value and the revision that made it; None: nothing is decided (any more)."""

    value: V | None
    revision: int


@dataclass(frozen=True)
class Change(Generic[V]):
    """What a request did. before: the value until then; foreign: that was written by another tab since `seen`."""

    number: int
    attribute: str
    value: V | None
    before: V | None
    revision: int
    foreign: bool = False


class CellStore(Closing, Generic[V]):
    """Use as a context manager; may be used from any thread, and by one process at a time.

    guarded: the file that no other process may write meanwhile. shown: the numbers that are asked about, in this order;
    what is decided about others is kept.
    Subclasses read what was decided (`_read`), write a cell (`_write`: on disk when it returns, nothing changed when it
    raises) and set cells with `_set` after they have checked them.
    """

    activity = "work"

    def __init__(self, guarded: Path, shown: Iterable[int]) -> None:
        self._mutex = threading.RLock()
        self.shown = tuple(shown)
        self.revision = 0
        self._cells: dict[tuple[int, str], Cell[V]] = {}  # those changed since the start
        self._orders: dict[tuple[int, str], tuple[str, int]] = {}  # cell -> (client, order) of its last write
        self._history: list[tuple[str, Change[V]]] = []
        self._lock = lock_file(guarded.with_name(f".{guarded.name}.lock"), guarded, "use its page, or end it first")
        try:
            self._rows = self._read()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let other processes write the files. May be called again."""
        with self._mutex:
            self._lock.close()

    def state(self) -> dict[str, Any]:
        """Everything a page needs to start: numbers, rows, and the revision that they are of."""
        with self._mutex:
            rows = {number: row for number in self.shown if (row := self._rows.get(number))}
            return {"numbers": list(self.shown), "rows": rows, "revision": self.revision}

    def changes(self, since: int) -> dict[str, Any]:
        """What changed after revision `since`, by any tab."""
        with self._mutex:
            cells = [
                {"number": number, "attribute": attribute, "value": cell.value, "revision": cell.revision}
                for (number, attribute), cell in self._cells.items()
                if cell.revision > since
            ]
            return {"revision": self.revision, "cells": cells}

    def undo(self, client: str) -> Change[V] | None:
        """Take back the last change of this tab that nobody has changed since; None when there is none."""
        with self._mutex:
            for at in range(len(self._history) - 1, -1, -1):
                owner, change = self._history[at]
                if owner != client:
                    continue
                cell = self._cells[change.number, change.attribute]
                if cell.revision == change.revision:
                    try:
                        undone = self._record(change.number, change.attribute, change.before)
                    except InvalidInputError:
                        # What stood there cannot stand there any more: not in the way of older changes.
                        del self._history[at]
                        raise
                    del self._history[at]
                    self._reclaim(client, change, undone.revision)
                    return undone
                del self._history[at]
            return None

    # For subclasses

    @abstractmethod
    def _read(self) -> dict[int, dict[str, V]]:
        """What was decided before, by number and attribute. Raises InvalidInputError."""

    @abstractmethod
    def _write(self, number: int, attribute: str, value: V | None) -> None:
        """Put the value on disk. Raises OutputError; then nothing has changed."""

    def _value(self, number: int, attribute: str) -> V | None:
        return self._rows.get(number, {}).get(attribute)

    def _without(self, number: int, attribute: str) -> dict[str, V]:
        return {name: value for name, value in self._rows.get(number, {}).items() if name != attribute}

    def _require(self, number: Any, known: Container[int], unknown: str) -> None:
        """Raises OutputError after `close`, InvalidInputError saying `unknown` for what is not a known number."""
        if self._lock.closed:
            raise OutputError(f"the {self.activity} has ended: start the same command again")
        if isinstance(number, bool) or not isinstance(number, int) or number not in known:
            raise InvalidInputError(unknown)

    def _set(
        self, client: str, order: int, number: int, attribute: str, value: V | None, seen: int | None
    ) -> Change[V]:
        """Set one cell; value None clears it. The last write of a cell wins.

        client, order: a tab and its running number of requests; of two writes of a cell by one tab the one of the
        higher order wins, in whatever order they arrive. seen: the revision up to which the tab knows changes; a value
        that another tab wrote after it is reported as `foreign`.
        """
        with self._mutex:
            key = (number, attribute)
            before = self._value(number, attribute)
            last = self._orders.get(key)
            if last is not None and last[0] == client and last[1] > order:
                return Change(number, attribute, before, before, self.revision)
            other = last is not None and last[0] != client
            foreign = other and seen is not None and self._cells[key].revision > seen and before not in (None, value)
            change = self._record(number, attribute, value)
            self._orders[key] = (client, order)
            if change.value != change.before:
                self._history.append((client, change))
                del self._history[:-REMEMBERED]
            return replace(change, foreign=foreign)

    def _record(self, number: int, attribute: str, value: V | None) -> Change[V]:
        before = self._value(number, attribute)
        self._write(number, attribute, value)
        self.revision += 1
        self._cells[number, attribute] = Cell(value, self.revision)
        return Change(number, attribute, value, before, self.revision)

    def _reclaim(self, client: str, undone: Change[V], revision: int) -> None:
        """The change before the undone one made the value that stands again: it can be undone next."""
        for at in range(len(self._history) - 1, -1, -1):
            owner, change = self._history[at]
            if (change.number, change.attribute) == (undone.number, undone.attribute):
                if owner == client and change.value == undone.before:
                    self._history[at] = (owner, replace(change, revision=revision))
                return


def read_decisions(path: Path, parsed: Callable[[Any], T], remedy: str) -> T | None:
    """What `parsed` makes of a JSON file; None without one. Raises InvalidInputError with the remedy when it cannot."""
    if not os.path.lexists(path):
        return None
    content = read_object(path, "decisions", remedy=remedy)
    try:
        return parsed(content)
    except InvalidInputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise InvalidInputError(
            f"cannot use {path}: {type(error).__name__} {one_line(error, 120)}; {remedy}"
        ) from error
