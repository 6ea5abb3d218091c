"""Tables of pandas as data: columns with their values, the index, types and the number of rows."""

import datetime
import json
import sys
import warnings

from . import convert

MIME = "application/vnd.pyodide-express.table+json"
SCHEMA_MIME = "application/vnd.dataresource+json"
"""pandas' own: what its option `display.html.table_schema` shows, of as many rows."""
_MAX_ROWS = 10_000
_MAX_COLUMNS = 1_000
_MAX_CELLS = 100_000
_MAX_BYTES = 2 * 1024 * 1024
_MAX_SCHEMA_BYTES = 1024 * 1024


def is_table(value):
    pandas = sys.modules.get("pandas")
    kinds = tuple(kind for name in ("DataFrame", "Series") if isinstance(kind := getattr(pandas, name, None), type))
    return bool(kinds) and isinstance(value, kinds)


def data_of(value):
    """Returns MIME type → JSON text: none, where the table has parts that cannot be told. Raises nothing but interrupts."""
    data = {}
    for mime, make, most in ((MIME, _table_of, _MAX_BYTES), (SCHEMA_MIME, _schema_of, _MAX_SCHEMA_BYTES)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                text = make(value)
        except Exception:
            continue
        if len(text) <= most:
            data[mime] = text
    return data


def _table_of(value):
    table = value if hasattr(value, "columns") else value.to_frame()
    rows, columns = table.shape
    shown = table.iloc[:, :_MAX_COLUMNS]
    most = max(min(_MAX_ROWS, _MAX_CELLS // max(shown.shape[1], 1)), 1)
    while True:
        part = shown.iloc[:most]
        text = _text_of(part, rows, part.shape != (rows, columns))
        if len(text) <= _MAX_BYTES or most == 1:
            return text
        most = max(1, min(most // 2, most * _MAX_BYTES // len(text)))


def _text_of(table, rows, truncated):
    names = _names(table.columns)
    columns = {}
    for place, name in enumerate(names):
        columns[name] = _values(table.iloc[:, place])
    return json.dumps(
        {
            "columns": columns,
            "index": _values(table.index),
            "types": {name: str(kind) for name, kind in zip(names, table.dtypes)},
            "rows": rows,
            "truncated": truncated,
        }
    )


def _names(columns):
    """As texts; of two that are equal the second is followed by `.1`, as where pandas reads a file."""
    names, taken = [], set()
    for column in columns:
        name = plain = _text(column)
        number = 0
        while name in taken:
            number += 1
            name = f"{plain}.{number}"
        taken.add(name)
        names.append(name)
    return names


def _text(name):
    name = name.isoformat() if isinstance(name, (datetime.date, datetime.time)) else name
    return name if isinstance(name, str) else convert.describe(name)


def _values(column):
    kind = getattr(column, "dtype", None)
    if getattr(kind, "kind", "O") in "biuf" and type(kind).__module__.startswith("numpy"):
        return convert.to_json_data(column.to_numpy())[0]
    return convert.to_json_data([_written(value) for value in column.tolist()])[0]


def _written(value):
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat() if value == value else None
    if isinstance(value, tuple):
        return [_written(part) for part in value]
    return value


def _schema_of(value):
    pandas = sys.modules["pandas"]
    if not getattr(value, "columns", value.index).is_unique:
        raise ValueError("rows are objects with a member for each column")
    most = pandas.get_option("display.max_rows") or 60
    part = value.iloc[:most] if not hasattr(value, "columns") else value.iloc[:most, :_MAX_COLUMNS]
    return part.to_json(orient="table")
