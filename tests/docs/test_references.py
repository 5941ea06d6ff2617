"""Every reference to a page of the repository leads somewhere: file, section, relative link, anchor."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").is_file())
PRODUCT = ("ohlora", "kernels", "export", "training", "bench")
PAGES = ("README.md", "docs", "bench/README.md")

# "docs/spec/cnn.md, sections 4, 6 and 7", "docs/spec/stylegan.md, section 6, and section 13, P1",
# 'docs/parsing.md, section "Classes"'; in pages also "[cnn.md](cnn.md), section 8".
NUMBER = r"\d+(?:\.\d+)*"
LIST = rf"{NUMBER}(?:(?:, | and | to ){NUMBER}(?![\w.]*\d))*"
ITEM = r"[PD]\d+|item \d+|rewrites? \([a-z]\)(?: to \([a-z]\))?"
PLACE = rf"sections? (?:(?P<numbers>{LIST})|\"(?P<title>[^\"]+)\")(?:, (?P<item>{ITEM})(?!\w))?"
# What follows is only looked at, since another reference may begin there.
REFERENCE = re.compile(r"(?<![\w/.-])(?P<path>(?:docs|bench|tests)/[\w./-]*\.md)(?=(?P<rest>.{0,200}))")
LINKED = re.compile(r"\[[^\]]*\]\((?P<path>[\w./-]+\.md)(?:#[\w-]*)?\)(?=(?P<rest>.{0,200}))")
PLACES = re.compile(rf"^,(?: and)? {PLACE}")
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(<?(?P<target>[^)\s>]+)>?(?: \"[^\"]*\")?\)")
# What nobody outside can open, and forms that say no file.
NAMES = "ombre|properties|runtime|cnn|segmentation|stylegan|vectorfind"
UNKNOWN = {
    "a folder beside the repository": re.compile(r"\.\./shared\b"),
    "a specification without its file": re.compile(
        rf"\b[Ss]pec: ?(?:{NAMES}|\d)|\bspecs? sections? \d|\bspec P\d|(?<!docs/)\bspec/(?:{NAMES})\b"
    ),
    "the design without its file": re.compile(r"\bDESIGN sections?\b|\(design, section"),
}


def walk(top: str, *suffixes: str) -> Iterator[Path]:
    """Files below `top`, links left out: those of ohlora/ lead to folders that are walked themselves."""
    if (ROOT / top).is_file():
        yield ROOT / top
    for folder, folders, names in os.walk(ROOT / top):
        folders[:] = sorted(d for d in folders if d != "__pycache__" and not (Path(folder) / d).is_symlink())
        yield from (Path(folder) / name for name in sorted(names) if name.endswith(suffixes))


def flat(text: str) -> str:
    """One line, so that a reference may be broken at any blank, in a comment too."""
    return re.sub(r"\s*\n\s*(?:# )?", " ", text)


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))


@cache
def headings(page: Path) -> tuple[str, ...]:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    return tuple(match[1].strip() for match in re.finditer(r"^#{1,6} (.+)$", text, flags=re.M))


@cache
def anchors(page: Path) -> frozenset[str]:
    """As GitHub makes them: lower case, punctuation dropped, blanks to dashes, repeated ones numbered."""
    found: dict[str, int] = {}
    names = set()
    for heading in headings(page):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        names.add(name if name not in found else f"{name}-{found[name]}")
        found[name] = found.get(name, 0) + 1
    return frozenset(names)


def section(page: Path, number: str) -> str | None:
    """Text of the numbered section, its subsections included; None without one."""
    text = page.read_text(encoding="utf-8")
    start = re.search(rf"^(#+) {re.escape(number)}\.? .*$", text, flags=re.M)
    if start is None:
        return None
    end = re.search(rf"^#{{1,{len(start[1])}}} ", text[start.end() :], flags=re.M)
    return text[start.end() :][: end.start() if end else None]


def missing(page: Path, rest: str) -> Iterator[str]:
    """What the places named in `rest`, right behind a page's name, lack in `page`."""
    while place := PLACES.match(rest):
        rest = rest[place.end() :]
        if place["title"] is not None:
            if place["title"] not in headings(page):
                yield f'section "{place["title"]}"'
            continue
        body = ""
        for number in re.findall(NUMBER, place["numbers"]):
            body = section(page, number) or ""
            if not body:
                yield f"section {number}"
        if place["item"] and body and not has_item(body, place["item"]):
            yield place["item"]


def has_item(body: str, item: str) -> bool:
    """Whether a section has the row of a table (P1, D8), the item of a list, or the lettered steps."""
    name = item.split()[-1]
    if item[0] in "PD":
        return f"| {item} |" in body
    if item.startswith("item"):
        return re.search(rf"^{name}\. ", body, flags=re.M) is not None
    return all(letter in body for letter in re.findall(r"\([a-z]\)", item))


def broken(text: str, page: Path | None = None) -> list[str]:
    """The references in `text` that lead nowhere. page: the page it stands on, whose links name their files."""
    found = [(ROOT / match["path"], match) for match in REFERENCE.finditer(flat(text))]
    if page is not None:
        # Whether the file of a link exists is the other test's question.
        links = [(page.parent / match["path"], match) for match in LINKED.finditer(flat(text))]
        found += [(target, match) for target, match in links if target.is_file()]
    errors = []
    for target, match in found:
        if not target.is_file():
            errors.append(f"{match['path']} does not exist")
            continue
        errors += [f"{match['path']} has no {what}" for what in missing(target, match["rest"])]
    return errors


def test_references_name_files_and_sections_that_exist() -> None:
    errors, count = [], 0
    for top in (*PRODUCT, "tests", "docs", "README.md"):
        for path in walk(top, ".py", ".md"):
            if path == Path(__file__).resolve():
                continue
            text = path.read_text(encoding="utf-8")
            count += len(REFERENCE.findall(flat(text)))
            # A link's text may be a path seen from the repository, its target is seen from the page.
            errors += [f"{shown(path)}: {error}" for error in broken(text, path if path.suffix == ".md" else None)]
    assert not errors, "\n".join(errors)
    assert count > 100


def test_code_names_nothing_that_a_reader_cannot_open() -> None:
    errors = []
    for top in PRODUCT:
        for path in walk(top, ".py", ".md", ".js", ".html", ".css"):
            text = flat(path.read_text(encoding="utf-8"))
            errors += [f"{shown(path)}: {what}: {m[0]}" for what, form in UNKNOWN.items() if (m := form.search(text))]
    assert not errors, "\n".join(errors)


@pytest.mark.parametrize("top", PAGES)
def test_relative_links_lead_somewhere(top: str) -> None:
    errors = []
    for page in walk(top, ".md"):
        for match in LINK.finditer(without_code(page.read_text(encoding="utf-8"))):
            name, _, anchor = match["target"].partition("#")
            if re.match(r"[a-z][a-z0-9+.-]*:", name):  # https: and the like
                continue
            target = Path(os.path.normpath(page.parent / name)) if name else page
            if not target.is_relative_to(ROOT) or not target.exists():
                errors.append(f"{shown(page)}: {match['target']} does not exist")
            elif anchor and (target.suffix != ".md" or anchor not in anchors(target)):
                errors.append(f"{shown(page)}: {match['target']}: no heading #{anchor}")
    assert not errors, "\n".join(errors)


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        ("docs/spec/cnn.md, sections 4,\n    # 6 and 7).", []),
        ("(docs/spec/cnn.md, section 99)", ["docs/spec/cnn.md has no section 99"]),
        ("docs/spec/cnn.md, sections 4 to 77", ["docs/spec/cnn.md has no section 77"]),
        ("docs/spec/stylegan.md, section 6, and section 13, P1", []),
        ("docs/spec/stylegan.md, section 13, P99", ["docs/spec/stylegan.md has no P99"]),
        ("docs/spec/segmentation.md, section 10, item 8", []),
        ("docs/spec/segmentation.md, section 5, rewrite (d)", []),
        ("docs/spec/segmentation.md, section 5, rewrite (z)", ["docs/spec/segmentation.md has no rewrite (z)"]),
        ("docs/spec/ombre.md, section 2, and docs/spec/cnn.md, section 99", ["docs/spec/cnn.md has no section 99"]),
        ('docs/parsing.md, section "Nothing"', ['docs/parsing.md has no section "Nothing"']),
        ("docs/nothing.md", ["docs/nothing.md does not exist"]),
    ],
)  # fmt: skip
def test_the_check_itself(text: str, errors: list[str]) -> None:
    assert broken(text) == errors
