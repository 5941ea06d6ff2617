"""Options of a command that are not typed by hand: the fields of a recipe, or a group that several commands share.

    def distill(
        changes: Annotated[Changes, RecipeFields("students.recipes:DistillConfig")],
        machine: Machine,
        out: options.Out = Path("runs/distill"),
    ) -> None:

`with_options(distill)` has an option for every field of `DistillConfig` that says what it means (its type, help and
limits, the default of the recipes), and one for every field of the dataclass `Machine`. `changes` is what the user set,
by field; `machine` an instance.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, get_args, get_type_hints

from typer import Option

from ohlora.base.recipe import Setting, path_text, settings_of

Changes = dict[str, Any]
Gather = Callable[[dict[str, Any]], Any]  # takes its own values out of a command's


@dataclass(frozen=True)
class RecipeFields:
    """Marks the parameter of a command that takes the changes of a recipe.

    source: "module:class" below ohlora.training, of a module that can be imported without PyTorch. table: the recipes
    of that module, whose values are the defaults. only: these fields; without: all but these.
    """

    source: str
    table: str = "PRESETS"
    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def parameters(self) -> tuple[list[inspect.Parameter], Gather]:
        """One parameter a field, None by default; and what the user set of them, read and checked."""
        place, _, name = self.source.partition(":")
        module = importlib.import_module(f"ohlora.training.{place}")
        kind: type = getattr(module, name)
        chosen = {
            name: entry
            for name, entry in settings_of(kind).items()
            if entry.meaning.help and name not in self.without and (not self.only or name in self.only)
        }
        recipes = list(_entries(getattr(module, self.table, {}), kind))
        own = {entry.name: entry.default for entry in fields(kind)}
        defaults = {name: {getattr(recipe, name) for recipe in recipes} or {own[name]} for name in chosen}

        def gather(values: dict[str, Any]) -> Changes:
            given = {name: values.pop(name) for name in chosen}
            return {name: _value(chosen[name], value) for name, value in given.items() if value is not None}

        return [_option(entry, defaults[name]) for name, entry in chosen.items()], gather


def with_options(command: Callable[..., Any], before: Callable[[], object] = lambda: None) -> Callable[..., Any]:
    """The command with groups of options in the place of the parameters that stand for them. before: called first."""
    parameters: list[inspect.Parameter] = []
    groups: dict[str, Gather] = {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        marks = [mark for mark in get_args(parameter.annotation)[1:] if isinstance(mark, RecipeFields)]
        if marks:
            more, groups[parameter.name] = marks[0].parameters()
        elif isinstance(parameter.annotation, type) and is_dataclass(parameter.annotation):
            more, groups[parameter.name] = _group(parameter.annotation)
        else:
            more = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
        parameters += more

    @functools.wraps(command)
    def run(**values: Any) -> Any:
        before()
        made = {name: gather(values) for name, gather in groups.items()}
        return command(**values, **made)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _group(kind: type) -> tuple[list[inspect.Parameter], Gather]:
    hints = get_type_hints(kind, include_extras=True)
    parameters = [_parameter(entry.name, hints[entry.name], entry.default) for entry in fields(kind)]
    return parameters, lambda values: kind(**{entry.name: values.pop(entry.name) for entry in fields(kind)})


def _option(entry: Setting, recipes: set[Any]) -> inspect.Parameter:
    """None by default; what recipes have in that case is said."""
    about, names = entry.meaning, _flags(entry)
    numeric = entry.kind in (int, float) and about.read is None
    optional: Any = (entry.kind if numeric or entry.kind is bool else str) | None
    default = _words(recipes.pop(), names) if len(recipes) == 1 else "the recipe's"
    option = Option(
        *(["/".join(names)] if entry.kind is bool else names),
        help=about.help,
        metavar="PATH" if about.read is path_text else f"[{'|'.join(entry.choices)}]" if entry.choices else None,
        show_default=default or False,
        rich_help_panel="Recipe",
        min=about.low if numeric else None,
        max=about.high if numeric else None,
    )
    return _parameter(entry.name, Annotated[optional, option], None)


def _flags(entry: Setting) -> list[str]:
    """Names of the option; of a switch, the one that turns it on and the one that turns it off."""
    name = entry.name.replace("_", "-")
    own = [f"--{name}", f"--no-{name}"] if entry.kind is bool else [f"--{name}"]
    return entry.meaning.flag.split("/") if entry.meaning.flag else own


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    missing = inspect.Parameter.empty if default is MISSING else default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=missing, annotation=annotation)


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
