"""Describes an uploaded table. Runs in a sandbox; `filename` comes as data."""

import json
import os
import sys

# The file is to be read, not run: the caller's own modules lie beside it.
sys.path.remove("")


def analyse(filename):
    path = os.path.join("/home/pyodide", filename)
    report = {"success": False, "filename": filename, "shape": None, "columns": None, "sample": None, "memory_usage": None}
    try:
        if os.path.getsize(path) == 0:
            raise ValueError("the file is empty")
        analyse_table = analyse_csv if filename.lower().endswith(".csv") else analyse_json
        return {**report, **analyse_table(path), "success": True}
    except Exception as error:
        return {**report, "error": f"{type(error).__name__}: {error}".strip()}


def analyse_csv(path):
    text = read_text(path)
    if not text.strip():
        raise ValueError("the file is empty")
    if "\0" in text[:65536]:
        raise ValueError("the file is binary")
    delimiter = delimiter_of(text)
    try:
        import pandas
    except ImportError:
        return analyse_rows(text, delimiter)
    import io

    frame = pandas.read_csv(io.StringIO(text), sep=delimiter)
    if len(frame) and not isinstance(frame.index, pandas.RangeIndex):  # it took what is too much for one
        raise ValueError("there are lines with more fields than the header has")
    return {
        "shape": [int(n) for n in frame.shape],
        "columns": [str(name) for name in frame.columns],
        "sample": json.loads(frame.head(5).to_json(orient="records", date_format="iso", double_precision=15)),
        "memory_usage": int(frame.memory_usage(deep=True).sum()),
    }


def analyse_rows(text, delimiter):
    import csv
    import io

    csv.field_size_limit(sys.maxsize)
    # No newline translation: a quoted "\r\n" is data.
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header = next(row for row in rows if any(map(str.strip, row)))
    columns = unique([name.strip() for name in header])
    sample, count, used = [], 0, 0
    for row in rows:
        if not row:
            continue
        if len(row) > len(columns):
            raise ValueError(f"line {rows.line_num} has {len(row)} fields, the header has {len(columns)}")
        count += 1
        used += sum(map(len, row)) + 8 * len(columns)
        if count <= 5:
            sample.append(dict(zip(columns, map(value, row + [""] * (len(columns) - len(row))))))
    return {"shape": [count, len(columns)], "columns": columns, "sample": sample, "memory_usage": used}


def analyse_json(path):
    with open(path, encoding="utf-8-sig") as file:
        data = json.load(file)
    rows = data if isinstance(data, list) else [data]
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError("the file is JSON, but no list of objects")
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return {
        "shape": [len(rows), len(columns)],
        "columns": columns,
        "sample": rows[:5],
        "memory_usage": os.path.getsize(path),
    }


def read_text(path):
    """Excel writes a byte order mark, or the system's own encoding."""
    with open(path, "rb") as file:
        data = file.read()
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            pass
    return data.decode("latin-1")


def delimiter_of(text):
    """The most frequent candidate in the header, outside of quotes."""
    counts = {",": 0, ";": 0, "\t": 0, "|": 0}
    quoted, blank = False, True
    for character in text[:65536]:
        if character == '"':
            quoted = not quoted
        elif character in "\r\n" and not quoted and not blank:
            break
        elif character in counts and not quoted:
            counts[character] += 1
        blank = blank and character.isspace()
    return max(counts, key=counts.get)


def unique(names):
    """Numbered as pandas does: `a`, `a.1`, `a.2`."""
    given, taken, numbers, result = set(names), set(), {}, []
    for index, name in enumerate(names):
        free = name = name or f"Unnamed: {index}"
        while free in taken or (free != name and free in given):
            numbers[name] = numbers.get(name, 0) + 1
            free = f"{name}.{numbers[name]}"
        taken.add(free)
        result.append(free)
    return result


def value(text):
    # Python also takes `1_000` and digits of other scripts, which is no number elsewhere.
    if text.isascii() and "_" not in text:
        for convert in (int, float):
            try:
                return convert(text)
            except ValueError:
                pass
    return text if text != "" else None


analyse(filename)
