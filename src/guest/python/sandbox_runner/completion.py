"""What may stand where an editor's cursor is: names, attributes, arguments, keys, modules, files, magics."""

import ast
import inspect
import itertools
import keyword
import os
import re
import sys
import time
from importlib.machinery import PathFinder
from pkgutil import iter_modules

from . import interactive_shell, static_values
from .source_scan import Scan

_MAX_MATCHES = 500
_MAX_CHARACTERS = 500
"""Of one match."""
_MAX_ENTRIES = 10_000
_MAX_SOURCE_CHARACTERS = 500_000
_MAX_SECONDS = 1.0
"""For the look into folders of packages."""

_PREFIX = re.compile(r"[^\W\d]\w*\Z")
_NUMBER = re.compile(r"(?<!\w)\d[\w.]*\Z")
_DEFINITION = re.compile(r"\b(?:def|class|as|global|nonlocal)[ \t]+\w*\Z")
_MAGIC = re.compile(r"[ \t]*(%{1,2})(\w*)\Z")
_IMPORT = re.compile(r"[ \t]*import[ \t]+(?:.*,[ \t]*)?([\w.]*)\Z")
_FROM = re.compile(r"[ \t]*from[ \t]+([\w.]*)\Z")
_FROM_IMPORT = re.compile(r"[ \t]*from[ \t]+([\w.]+)[ \t]+import[ \t]*(?:\(?[^()]*[,(\s])?(\w*)\Z", re.S)
_IN_PYTHON = ("time", "timeit", "capture")


def complete(code, cursor, names):
    """Returns `{matches: [{text, type}], start, end, isCut}`; start and end count characters of the code. `names`: all that a name may be."""
    before = code[:cursor]
    start, found = _find(before, code, names)
    typed = before[start:]
    matches = _fitting(found, typed)
    kept = matches[:_MAX_MATCHES]
    return {
        "matches": [{"text": text, "type": kind} for text, kind in kept],
        "start": start,
        "end": cursor,
        "isCut": len(kept) < len(matches),
    }


def _fitting(found, typed):
    """Those of `found`, pairs of text and type, that go on from what was typed; the best first."""
    found = list(itertools.islice(found, _MAX_ENTRIES * 2))
    fitting = {text: kind for text, kind in found if text.startswith(typed)}
    if not fitting:
        lower = typed.lower()
        fitting = {text: kind for text, kind in found if text.lower().startswith(lower)}
    if not typed.startswith("_"):
        visible = {text: kind for text, kind in fitting.items() if not text.startswith("_")}
        fitting = visible or fitting
    matches = [(text, kind) for text, kind in fitting.items() if len(text) <= _MAX_CHARACTERS]
    return sorted(matches, key=lambda match: (match[1] != "param", match[0].startswith("__"), match[0].startswith("_"), match[0].lower(), match[0]))


def _find(before, code, names):
    """Where what is to be completed begins, and what may stand there, as pairs of text and type."""
    scan = Scan(before)
    end = len(before)
    if scan.is_comment:
        return end, ()
    if scan.string is not None:
        return _in_string(scan, names)
    line = before[before.rfind("\n") + 1 :]
    if match := _FROM_IMPORT.match(_logical_line(scan)):
        return end - len(match[2]), _names_of_module(match[1])
    if not scan.brackets:
        if match := _MAGIC.match(line):
            return end - len(match[2]), _magics(match[1])
        if line.lstrip().startswith("!"):
            return end, ()
        if match := _IMPORT.match(line) or _FROM.match(line):
            return end - len(match[1].rpartition(".")[2]), _modules(match[1].rpartition(".")[0])
    prefix = _PREFIX.search(before)
    start = prefix.start() if prefix else end
    if _DEFINITION.search(line) or _NUMBER.search(before):
        return end, ()
    if before[:start].endswith("."):
        first = scan.primary_before(start - 1)
        if first == start - 1:
            return end, ()
        owner = static_values.evaluate(before[first : start - 1], names)
        return start, () if owner is static_values.UNKNOWN else _described(static_values.members(owner))
    return start, itertools.chain(_arguments(scan, names), _all_names(before, code, names))


def _logical_line(scan):
    """The line that the end is in, from its beginning also where brackets hold several together."""
    text = scan.text
    first = scan.brackets[0] if scan.brackets else len(text)
    return text[text.rfind("\n", 0, first) + 1 :]


def _described(members):
    return ((name, static_values.kind_of(member)) for name, member in members.items())


def _all_names(before, code, names):
    for name in keyword.kwlist + keyword.softkwlist:
        if name != "_":
            yield name, "keyword"
    yield from _described({name: value for name, value in names.items() if type(name) is str})
    # What the code itself binds, where it can be read without the line that is being written.
    first = before.rfind("\n") + 1
    last = code.find("\n", len(before))
    try:
        tree = ast.parse(code[:first] + "pass" + (code[last:] if last >= 0 else ""))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    yield from _bound_names(tree)


def _bound_names(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, "instance"
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name, "function"
            arguments = node.args
            for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
                yield argument.arg, "instance"
        elif isinstance(node, ast.ClassDef):
            yield node.name, "class"
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            for alias in node.names:
                if alias.name != "*":
                    yield (alias.asname or alias.name.partition(".")[0]), "module" if isinstance(node, ast.Import) else "instance"


def _arguments(scan, names):
    call = scan.callee()
    if call is None:
        return
    start, end, _ = call
    function = static_values.evaluate(scan.text[start:end], names)
    if function is static_values.UNKNOWN:
        return
    for parameter in static_values.parameters(function) or ():
        if parameter.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY):
            yield f"{parameter.name}=", "param"


# Strings


def _in_string(scan, names):
    opened, start, prefix, quote = scan.string
    text = scan.text
    content = text[start:]
    if "\n" in content or "b" in prefix:
        return len(text), ()
    before = text[:opened].rstrip(" \t")
    if before.endswith("[") and scan.brackets and scan.brackets[-1] == len(before) - 1:
        first = scan.primary_before(len(before) - 1)
        if first < len(before) - 1:
            container = static_values.evaluate(text[first : len(before) - 1], names)
            keys = () if container is static_values.UNKNOWN else static_values.keys(container)
            plain = [key for key in keys if repr(key)[1:-1] == key and quote not in key]
            if plain:
                return start, ((key, "dict key") for key in plain)
    return len(text) - len(content.rpartition("/")[2]), _paths(content)


def _paths(content):
    folder, slash, typed = content.rpartition("/")
    path = os.path.expanduser(folder + slash) or "."
    try:
        with os.scandir(path) as entries:
            for entry in itertools.islice(entries, _MAX_ENTRIES):
                if entry.name.startswith(".") and not typed.startswith("."):
                    continue
                yield entry.name + ("/" if entry.is_dir() else ""), "path"
    except (OSError, ValueError):
        return


# Modules


def _modules(package):
    """Modules that can be imported; with a package, those in it."""
    if package == "":
        for name in sys.builtin_module_names:
            yield name, "module"
        path = None
    else:
        for name in list(sys.modules):
            if name.startswith(f"{package}.") and "." not in name[len(package) + 1 :]:
                yield name[len(package) + 1 :], "module"
        path = _path_of(package)
        if path is None:
            return
    until = time.monotonic() + _MAX_SECONDS
    for folder in sys.path if path is None else path:
        if time.monotonic() > until:
            return
        try:
            found = [module.name for module in iter_modules([folder or os.getcwd()])]
        except Exception:
            continue
        for name in found:
            yield name, "module"


def _path_of(package):
    """Where a package has its modules; it is not imported for that. None: it is none."""
    path = None
    name = ""
    for part in package.split("."):
        name = f"{name}.{part}" if name else part
        found = static_values.evaluate("module.__path__", {"module": sys.modules.get(name)})
        if type(found) is not list:
            spec = _spec_in(path, name)
            found = None if spec is None else spec.submodule_search_locations
        if found is None:
            return None
        path = list(found)
    return path


def _spec_of(name):
    package, _, _ = name.rpartition(".")
    path = _path_of(package) if package else None
    return None if package and path is None else _spec_in(path, name)


def _spec_in(path, name):
    """`path`: of the package that the module is in; None: it is in none."""
    try:
        return PathFinder.find_spec(name, path)
    except Exception:
        return None


def _names_of_module(name):
    if name.startswith("."):
        return
    module = sys.modules.get(name)
    if module is not None:
        yield from _described(static_values.members(module))
    else:
        yield from _names_in_source(name)
    yield from _modules(name)


def _names_in_source(name):
    """What a module defines that was not imported: as its source says."""
    spec = _spec_of(name)
    try:
        source = spec.loader.get_source(name)
        if source is None or len(source) > _MAX_SOURCE_CHARACTERS:
            return
        body = ast.parse(source).body
    except Exception:  # there is no such module, or no source of it
        return
    for statement in body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield statement.name, "function"
        elif isinstance(statement, ast.ClassDef):
            yield statement.name, "class"
        elif isinstance(statement, (ast.Assign, ast.AnnAssign, ast.Import, ast.ImportFrom)):
            yield from _bound_names(statement)


def _magics(percents):
    kinds = ("_cell_",) if percents == "%%" else ("_line_", "_cell_")
    for name in dir(interactive_shell.InteractiveShell):
        for kind in kinds:
            if name.startswith(kind):
                yield name.removeprefix(kind), "magic"
    for name in _IN_PYTHON:
        yield name, "magic"
