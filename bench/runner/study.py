"""A measurement that is a command of its own: options from a function's parameters, its result as a JSON file."""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from ohlora.base.atomic import make_folder, write_json
from ohlora.bench.runner.machine import machine


def measured_on() -> dict[str, Any]:
    return {"machine": machine()}


def study(
    *, result: str = "out", on: Callable[[], dict[str, Any]] = measured_on, shown: bool = True, **helps: str
) -> Callable[[Callable[..., dict[str, Any] | None]], Callable[..., None]]:
    """Make a function the `main` of its module: `main(arguments=None)` parses, measures, writes and prints the result.

    Every parameter is an option: its name, type (list: several values) and default; `helps` has what it means. result:
    the option that names the JSON file, which the function may take too. on: what the result begins with. shown:
    whether it is printed. A function that returns None had nothing to measure.
    """

    def wrap(measured: Callable[..., dict[str, Any] | None]) -> Callable[..., None]:
        parameters = dict(inspect.signature(measured, eval_str=True).parameters)
        file = inspect.Parameter(result, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Path)

        def main(arguments: Sequence[str] | None = None) -> None:
            about = sys.modules[measured.__module__].__doc__
            parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
            for parameter in ({result: file} | parameters).values():
                _add_option(parser, parameter, helps.get(parameter.name))
            given = {key: value for key, value in vars(parser.parse_args(arguments)).items() if value is not None}
            found = measured(**{name: given[name] for name in parameters if name in given})
            if found is None:
                return
            content = on() | found
            if (path := given.get(result)) is not None:
                make_folder(path.parent)
                write_json(path, content)
            if shown:
                print(json.dumps(content, indent=1))

        return main

    return wrap


def _add_option(parser: argparse.ArgumentParser, parameter: inspect.Parameter, about: str | None) -> None:
    kind = parameter.annotation
    kind = get_args(kind)[0] if NoneType in get_args(kind) else kind
    settings: dict[str, Any] = {"required": parameter.default is inspect.Parameter.empty}
    if get_origin(kind) is list:
        kind, settings = get_args(kind)[0], {"nargs": "+", "action": "extend"}
    if kind is bool:
        settings = {"action": "store_true"}
    elif get_origin(kind) is Literal:
        settings["choices"] = get_args(kind)
    else:
        settings["type"] = kind
    parser.add_argument("--" + parameter.name.replace("_", "-"), help=about, **settings)
