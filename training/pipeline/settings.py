"""One YAML file of settings: read over a preset, checked, explained, and written back as it took effect."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from ohlora.base.atomic import write_bytes
from ohlora.base.reading import MAX_DEPTH, MAX_DIGITS, read_text
from ohlora.base.text import near, one_of, shown
from ohlora.errors import InvalidInputError, one_line

SETTINGS_FILE = "settings.yaml"
MAX_VALUES = 10_000
MAX_BITS = 1328  # of a whole number: MAX_DIGITS digits
MAX_BYTES = 1 << 20  # settings are a page; anything this large is another file


class Section(BaseModel):
    """Base of every part of the settings: nothing unknown, nothing changed later."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, protected_namespaces=())

    def effective(self, name: str) -> dict[str, Any] | None:
        """What section `name` stands for in full (a recipe's fields); None where it stands for itself."""
        return None


Model = TypeVar("Model", bound=Section)


def load_settings(
    kind: type[Model],
    presets: Mapping[str, Mapping[str, Any]],
    *,
    preset: str | None = None,
    file: Path | None = None,
    changes: Sequence[str] = (),
    default: str | None = None,
) -> Model:
    """A preset, over it the file, over that the changes ("section.field=value") -> checked settings.

    The file may name its preset; another one asked for beside it is refused, as the file's values were written over
    its own. Raises InvalidInputError naming file, setting, value and the nearest known name.
    """
    content = {} if file is None else read_yaml(file)
    origin = "the settings" if file is None else str(file)
    named = content.pop("preset", None)
    if named is not None and preset is not None and named != preset:
        raise InvalidInputError(f"{origin} is written for preset '{named}', asked for is '{preset}': leave one out")
    chosen = preset or named or default
    if not isinstance(chosen, str) or chosen not in presets:
        raise InvalidInputError(f"unknown preset '{chosen}'{near(str(chosen), presets)}: choose {one_of(presets)}")
    # A section of a preset or a file leaves what it does not name as the settings have it.
    merged = merge(merge(kind().model_dump(), presets[chosen], chosen), content, origin)
    for change in changes:
        merged = merge(merged, parse_change(change), f"--set {change}")
    try:
        return kind.model_validate({**merged, "preset": chosen})
    except ValidationError as error:
        lines = [explain(kind, entry) for entry in error.errors(include_url=False)]
        raise InvalidInputError(f"{origin}: " + "; ".join(dict.fromkeys(lines))) from error


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML mapping. Raises InvalidInputError naming the file and the line."""
    remedy = "" if file.exists() else "--write-settings writes one to begin with"
    text = read_text(file, "settings file", limit=MAX_BYTES, remedy=remedy)
    content = parse_yaml(text, str(file))
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InvalidInputError(
            f"{file} must hold settings by name (section: field: value), not a {type(content).__name__}"
        )
    return content


def parse_yaml(text: str, where: str) -> Any:
    """What YAML says: plain values, not nested deeper or repeated more often than settings can be.

    Raises InvalidInputError naming `where` and the line.
    """
    try:
        content = yaml.safe_load(text)
        _require_small(content)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f", line {mark.line + 1}"
        raise InvalidInputError(
            f"{where}{line} is no YAML: {shown(getattr(error, 'problem', None) or error, 200)}"
        ) from error
    except RecursionError as error:
        raise InvalidInputError(f"{where} is no YAML of settings: its values are nested too deeply") from error
    except Exception as error:  # a date of 99 days, a binary text of other letters: the constructors' own errors
        raise InvalidInputError(f"{where} is no YAML of settings: {one_line(error, 120)}") from error
    return content


def _require_small(content: Any) -> None:
    """Raises ValueError for more values than settings have, those counted again that an alias repeats."""
    left, level = MAX_VALUES, [content]
    for _ in range(MAX_DEPTH):
        left -= len(level)
        if left < 0:
            break
        inner = (list(v.values()) if isinstance(v, dict) else v for v in level if isinstance(v, dict | list | tuple))
        if any(isinstance(value, int) and value.bit_length() > MAX_BITS for value in level):
            raise ValueError(f"a number of more than {MAX_DIGITS} digits")
        level = [value for values in inner for value in values]
        if not level:
            return
    raise ValueError(f"more than {MAX_VALUES:,} values, or nested more than {MAX_DEPTH} deep")


def parse_change(text: str) -> dict[str, Any]:
    """ "section.field=value" -> {"section": {"field": value}}, the value read as YAML."""
    name, equals, value = text.partition("=")
    parts = name.strip().split(".")
    if not equals or not all(parts) or len(parts) > 3:
        raise InvalidInputError(
            f"--set '{shown(text)}' is not understood: write SECTION.FIELD=VALUE, e.g. finetune_v1.epochs=3"
        )
    result = {parts[-1]: parse_yaml(value, f"--set '{shown(text)}': the value")}
    for part in reversed(parts[:-1]):
        result = {part: result}
    return result


def merge(base: Mapping[str, Any], over: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """`over` on top of `base`, sections field by field.

    Raises InvalidInputError for a section given as something else.
    """
    result = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(base.get(key, {}), Mapping):
            result[key] = merge(base.get(key, {}), value, origin)
        elif isinstance(base.get(key), Mapping):
            if value is not None:
                raise InvalidInputError(f"{origin}: '{key}' is a section and needs fields, got {_shown(value)}")
        else:
            result[key] = value
    return result


def explain(kind: type[BaseModel], entry: Any) -> str:
    """One error of pydantic's, by setting and with the nearest known name."""
    place = [part for part in entry["loc"] if isinstance(part, str | int)]
    name = ".".join(map(str, place))
    if entry["type"] == "extra_forbidden":
        owner = kind
        for part in place[:-1]:
            owner = cast(type[BaseModel], owner.model_fields[str(part)].annotation)
        known = owner.model_fields
        what = "section or setting" if len(place) == 1 else "setting"
        return f"unknown {what} '{shown(name)}'{near(str(place[-1]), known)} (known: {', '.join(known)})"
    message = entry["msg"].removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    return f"{name or 'settings'} {message}, got {_shown(entry['input'])}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def as_yaml(settings: Section) -> str:
    """The settings alone, as they take effect; `load_settings` reads them back to equal ones."""
    return str(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120))


def template(settings: Section) -> str:
    """The settings with what each means beside it; below a section that stands for a recipe, what else it could say."""
    lines = [*_comment(_about(settings)), "# A line that is left out keeps the preset's value.", ""]
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if not isinstance(value, BaseModel):
            lines += _lines(name, value, field.description or "", "")
            continue
        lines += ["", *_comment(_about(value)), f"{name}:"]
        for key, entry in value.model_dump(mode="json").items():
            known = type(value).model_fields.get(key)
            lines += _lines(key, entry, (known.description if known else "") or "", "  ")
        rest = {key: entry for key, entry in (settings.effective(name) or {}).items() if key not in value.model_dump()}
        if rest:
            text = yaml.safe_dump(rest, default_flow_style=True, width=10_000, sort_keys=False).strip()[1:-1]
            lines += _comment(f"further: {text}", "  ")
    return "\n".join(lines) + "\n"


def _about(model: BaseModel) -> str:
    """The first paragraph of a docstring."""
    return " ".join((type(model).__doc__ or "").split("\n\n")[0].split())


def _comment(text: str, indent: str = "") -> list[str]:
    head = f"{indent}# "
    return textwrap.wrap(text, 118, initial_indent=head, subsequent_indent=head, break_long_words=False)


def _lines(name: str, value: Any, about: str, indent: str) -> list[str]:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    text = text.removesuffix("...\n").strip()  # YAML ends a lone value with a document mark
    return [f"{indent}{name}: {text}" + (f"  # {about}" if about else "")]


def write_settings(path: Path, text: str) -> None:
    """Raises InvalidInputError when the file is there: somebody's values may be in it."""
    if path.exists():
        raise InvalidInputError(f"{path} is there already: choose another name for the template")
    write_bytes(path, text.encode())


def save_settings(out: Path, settings: Section) -> None:
    """OUT/settings.yaml: what took effect; `--settings OUT/settings.yaml` asks for the same again."""
    write_bytes(out / SETTINGS_FILE, as_yaml(settings).encode())
