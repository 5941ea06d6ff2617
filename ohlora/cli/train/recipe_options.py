"""Options of a command that are not typed by hand: the fields of a recipe.

    @options.grouped
    def distill(*, changes: Annotated[Changes, RecipeFields("students.recipes:DistillConfig")], ...) -> None:

has an option for every field of `DistillConfig` that says what it means: its type, help and limits, the default of the
recipes. `changes` is what the user set, by field.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

from typer import Option

from ohlora.base.recipe import Setting, path_text, settings_of
from ohlora.cli.options import Gather, option

Changes = dict[str, Any]


@dataclass(frozen=True)
class RecipeFields:
    """Marks the parameter of a command that takes the changes of a recipe.

    source: "module:class" below ohlora.training, of a module that can be imported without PyTorch. table: the recipes
    of that module, whose values are the defaults. without: fields that are left out.
    """

    source: str
    table: str = "PRESETS"
    without: tuple[str, ...] = ()

    def parameters(self) -> tuple[list[inspect.Parameter], Gather]:
        """One parameter a field, None by default; and what the user set of them, read and checked."""
        place, _, name = self.source.partition(":")
        module = importlib.import_module(f"ohlora.training.{place}")
        kind: type = getattr(module, name)
        chosen = {
            name: entry for name, entry in settings_of(kind).items() if entry.meaning.help and name not in self.without
        }
        recipes = list(_entries(getattr(module, self.table, {}), kind))
        own = {entry.name: entry.default for entry in fields(kind)}
        defaults = {name: {getattr(recipe, name) for recipe in recipes} or {own[name]} for name in chosen}

        def gather(values: dict[str, Any]) -> Changes:
            given = {name: values.pop(name) for name in chosen}
            return {name: _value(chosen[name], value) for name, value in given.items() if value is not None}

        return [_option(entry, defaults[name]) for name, entry in chosen.items()], gather


def _option(entry: Setting, recipes: set[Any]) -> inspect.Parameter:
    """None by default; what recipes have in that case is said."""
    about, names = entry.meaning, _flags(entry)
    numeric = entry.kind in (int, float) and about.read is None
    optional: Any = (entry.kind if numeric or entry.kind is bool else str) | None
    default = _words(recipes.pop(), names) if len(recipes) == 1 else "the recipe's"
    shown = Option(
        *(["/".join(names)] if entry.kind is bool else names),
        help=about.help,
        metavar="PATH" if about.read is path_text else f"[{'|'.join(entry.choices)}]" if entry.choices else None,
        show_default=default or False,
        rich_help_panel="Recipe",
        min=about.low if numeric else None,
        max=about.high if numeric else None,
    )
    return option(entry.name, Annotated[optional, shown], None)


def _flags(entry: Setting) -> list[str]:
    """Names of the option; of a switch, the one that turns it on and the one that turns it off."""
    name = entry.name.replace("_", "-")
    own = [f"--{name}", f"--no-{name}"] if entry.kind is bool else [f"--{name}"]
    return entry.meaning.flag.split("/") if entry.meaning.flag else own


def _value(entry: Setting, value: Any) -> Any:
    """The value of an option, of the field's type. Raises InvalidInputError naming the option."""
    name = _flags(entry)[0]
    if isinstance(value, str):
        return entry.read(value, name)
    entry.check(value, name)
    return value


def _entries(table: Mapping[str, Any], kind: type) -> Iterator[Any]:
    for entry in table.values():
        if isinstance(entry, Mapping):
            yield from _entries(entry, kind)
        elif isinstance(entry, kind):
            yield entry


def _words(value: Any, names: Sequence[str] = ()) -> str:
    """A default as it would be typed; "" where there is none to show."""
    if isinstance(value, bool):
        return names[not value].strip("-")
    if isinstance(value, tuple):
        parts = [_words(part) for part in value]
        return (":" if value and type(value[0]) is int else ",").join(parts) if all(parts) else ""
    return f"{value:g}" if isinstance(value, float) else str(value) if isinstance(value, int | str) else ""
