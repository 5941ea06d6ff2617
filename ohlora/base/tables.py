"""Reading CSV files; `base.atomic` writes them."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from ohlora.base.arrays import unpack_gzip
from ohlora.base.reading import MIB, decode, read_file
from ohlora.base.text import shown
from ohlora.errors import InvalidInputError, OhloraError

TABLE_LIMIT = 1024 * MIB
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}

Rows = list[tuple[int, list[str]]]


def read_csv_rows(
    path: Path, what: str = "table", error: type[OhloraError] = InvalidInputError, *, delimiters: str = ","
) -> Rows:
    """Line numbers and cells of a CSV file, .gz or plain, without empty lines.

    delimiters: those that cells may be separated by; the one that the first line has most of is taken.
    Raises `error` naming the file, which is of the kind `what`, and the line.
    """
    data = read_file(path, what, error, limit=TABLE_LIMIT)
    where = f"{what} {shown(path, 300)}"
    if path.suffix.lower() == ".gz":
        try:
            data = unpack_gzip(data)
        except ValueError as problem:
            raise error(f"cannot read the {where}: {problem}") from problem
    text = decode(data, f"the {where}", error)
    first = text.lstrip("\r\n").partition("\n")[0].partition("\r")[0]
    delimiter = max(DELIMITERS, key=first.count)  # commas where there is none
    if delimiter not in delimiters:
        raise error(f"the cells of the {where} are separated by {DELIMITERS[delimiter]}: save it with commas")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    try:
        return [(reader.line_num, row) for row in reader if row]
    except csv.Error as problem:
        raise error(f"cannot read the {where}, line {reader.line_num}: {problem}") from problem
