"""Names of the sources that executions are compiled from, and their lines, for whatever quotes them: tracebacks, warnings, `inspect`, `pdb`.

A stateless execution is `<exec>`, or the file that it is the program of. Those of a session are `<exec 1>`, `<exec 2>`, …, and what one of them defines stays in it after it: its
lines stay as long as any code object or traceback has its name, which is told by the references to that string. The last
ones stay in any case, for classes without a function in them.
"""

import ast
import inspect
import io
import linecache
import sys
from types import FunctionType

STATELESS_NAME = "<exec>"
_MAX_UNUSED = 100
_MAX_UNUSED_CHARACTERS = 100_000
_STEP = 16
_STEP_CHARACTERS = 25_000

name = STATELESS_NAME
"""Name of the source of the execution that runs, or ran last."""
number_of_execution = 0
"""Number of that execution in its session, or namespace; 0: it is stateless."""
is_counted = True
"""Whether the execution has a number of its own: what a client runs beside its cells has none."""
_uncounted = 0
prefix = ""
"""What stands before the number in names of sources: the namespace's name and a space; nothing for the default one."""
program = None
"""Path of the file that the code is, where it is a program."""
_characters = {}
"""Characters of each source that a session keeps, oldest first."""
_next_look = (_MAX_UNUSED, _MAX_UNUSED_CHARACTERS)
"""Above how many sources, or characters, it is looked at next which are unused: to look takes as long as a short execution."""


def begin(code, number):
    """Give the execution's source a name; `number` is that of the execution in its session, None: it is stateless."""
    global name, number_of_execution, _next_look, _uncounted
    if number is None:
        name = program or STATELESS_NAME
    else:
        if is_counted:
            # The host does not count executions whose session could not be stored.
            number_of_execution = max(number, number_of_execution + 1)
            name = f"<exec {prefix}{number_of_execution}>"
        else:
            _uncounted += 1
            name = f"<exec {prefix}{number_of_execution}.{_uncounted}>"
        # The key is the string that code objects have now: a namespace that begins anew uses names again.
        _characters.pop(name, None)
        _characters[name] = len(code)
        if len(_characters) > _next_look[0] or sum(_characters.values()) > _next_look[1]:
            _forget_unused()
            _next_look = (
                max(_MAX_UNUSED, len(_characters) + _STEP),
                max(_MAX_UNUSED_CHARACTERS, sum(_characters.values()) + _STEP_CHARACTERS),
            )
    if code and "\n" not in code and "\r" not in code:
        lines = [code]
    else:
        # Not str.splitlines(): it also cuts where Python's own lines do not end, at a form feed or U+2028.
        lines = io.StringIO(code, newline=None).readlines()
    linecache.cache[name] = (len(code), None, lines, name)


def lines():
    return linecache.cache[name][2]


def _forget_unused():
    unused = [other for other, count in _references().items() if count == 0 and other != name]
    characters = sum(_characters[other] for other in unused)
    for index, other in enumerate(unused):
        if len(unused) - index <= _MAX_UNUSED and characters <= _MAX_UNUSED_CHARACTERS:
            break
        characters -= _characters.pop(other)
        linecache.cache.pop(other, None)


def _references():
    """How many references there are to each name besides ours."""
    probe = "<probe %d>" % len(_characters)
    _characters[probe] = 0
    linecache.cache[probe] = (0, None, [], probe)
    counts = {id(other): sys.getrefcount(other) for other in _characters}
    del _characters[probe], linecache.cache[probe]
    ours = counts[id(probe)]
    # The loop variable holds one of these references.
    return {other: max(counts[id(other)] - ours + 1, 0) for other in _characters}


def install():
    inspect.getfile = _getfile


_original_getfile = inspect.getfile


def _getfile(object):
    """Work out which source or compiled file an object was defined in."""
    if isinstance(object, type) and object.__module__ == "__main__":
        source = _source_of_class(object)
        if source is not None:
            return source
    return _original_getfile(object)


def _source_of_class(cls):
    first_line = cls.__dict__.get("__firstlineno__")
    if type(first_line) is not int:
        return None
    candidates = [name, *reversed(_characters)]
    used = {function.__code__.co_filename for function in _functions_of(cls)}
    # That of its own functions first: another execution may have a class of this name in the same place.
    for source in sorted(candidates, key=lambda candidate: candidate not in used):
        entry = linecache.cache.get(source)
        if entry is not None and len(entry) == 4 and _defines_class(entry[2], cls.__name__, first_line):
            return source
    return None


def _functions_of(cls):
    for value in cls.__dict__.values():
        if isinstance(value, (classmethod, staticmethod)):
            value = value.__func__
        elif isinstance(value, property):
            value = value.fget
        if isinstance(value, FunctionType):
            value = inspect.unwrap(value)
            if isinstance(value, FunctionType):
                yield value


def _defines_class(source_lines, class_name, first_line):
    if first_line > len(source_lines):
        return False
    try:
        tree = ast.parse("".join(source_lines))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            if first_line == min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]):
                return True
    return False
