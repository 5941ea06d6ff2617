"""Reading CSV files; `base.atomic` writes them."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from pathlib import Path

from ohlora.errors import InvalidInputError, OhloraError


def read_csv_rows(
    path: Path, what: str = "table", error: type[OhloraError] = InvalidInputError
) -> list[tuple[int, list[str]]]:
    """Line numbers and cells of a CSV file, .gz or plain, without empty lines.

    Raises `error` naming the file, which is of the kind `what`.
    """
    try:
        data = path.read_bytes()
        if path.suffix.lower() == ".gz":
            data = gzip.decompress(data)
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        return [(reader.line_num, row) for row in reader if row]
    except FileNotFoundError as problem:
        raise error(f"there is no {what} {path}") from problem
    except csv.Error as problem:
        raise error(f"cannot read the {what} {path}, line {reader.line_num}: {problem}") from problem
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as problem:
        raise error(f"cannot read the {what} {path}: {problem}") from problem
