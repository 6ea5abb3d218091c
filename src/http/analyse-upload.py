"""Describes an uploaded table. Runs in a sandbox; `filename` comes as data."""

import json
import os


def analyse(filename):
    path = os.path.join("/home/pyodide", filename)
    size = os.path.getsize(path)
    report = {"success": False, "filename": filename, "shape": None, "columns": None, "sample": None, "memory_usage": None}
    extension = filename.rsplit(".", 1)[-1].lower()
    if size == 0:
        return {**report, "error": "The file is empty."}
    try:
        if extension == "csv":
            return {**report, **analyse_csv(path), "success": True}
        if extension == "json":
            return {**report, **analyse_json(path), "success": True}
    except Exception as error:
        return {**report, "error": f"{type(error).__name__}: {error}"}
    return {**report, "error": f"A .{extension} file is no table."}


def analyse_csv(path):
    text, encoding = read_text(path)
    dialect = sniff(text[:65536])
    try:
        import pandas
    except ImportError:
        return analyse_rows(text, dialect)
    import io

    frame = pandas.read_csv(io.StringIO(text), sep=dialect.delimiter, quotechar=dialect.quotechar)
    return {
        "shape": [int(n) for n in frame.shape],
        "columns": [str(name) for name in frame.columns],
        "sample": json.loads(frame.head(5).to_json(orient="records", date_format="iso")),
        "memory_usage": int(frame.memory_usage(deep=True).sum()),
    }


def analyse_rows(text, dialect):
    import csv
    import io

    rows = csv.reader(io.StringIO(text), dialect, strict=True)
    columns = unique([name.strip() for name in next(rows)])
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
        return data.decode("utf-16"), "utf-16"
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return data.decode(encoding), encoding
        except UnicodeDecodeError:
            pass
    return data.decode("latin-1"), "latin-1"


def sniff(head):
    import csv

    class Dialect(csv.excel):
        delimiter = ","

    if "\0" in head:
        raise ValueError("the file is binary")
    first = next(iter(csv.reader([line for line in head.splitlines() if line.strip()][:1])), [])
    header = head.splitlines()[0] if head.splitlines() else ""
    counts = {mark: header.count(mark) for mark in (",", ";", "\t", "|")}
    best = max(counts, key=counts.get)
    if counts[best] > 0 and (len(first) <= 1 or counts[best] > counts[","]):
        Dialect.delimiter = best
    return Dialect


def unique(names):
    seen, result = {}, []
    for index, name in enumerate(names):
        name = name or f"Unnamed: {index}"
        seen[name] = seen.get(name, -1) + 1
        result.append(name if seen[name] == 0 else f"{name}.{seen[name]}")
    return result


def value(text):
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            pass
    return text if text != "" else None


analyse(filename)
