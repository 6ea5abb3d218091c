"""One execution: compile, run, convert, answer."""

import ast
import builtins
import os
import random
import sys
import tokenize
from asyncio import events
from importlib.machinery import FileFinder
from inspect import CO_COROUTINE
from io import FileIO, StringIO, TextIOWrapper

# By name, so that code that patches `json` patches its own only.
from json import dumps, loads

from . import convert, display, ending, eventloop, imports, interactive_shell, notebook, restrictions, tracebacks

_FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
_loop = None


def prepare():
    """Called once, before the memory image is taken."""
    global _loop
    restrictions.install()
    imports.install()
    _loop = eventloop.install()
    builtins.display = display.display
    builtins.get_ipython = interactive_shell.get_ipython
    sys.excepthook = tracebacks.excepthook
    for fd, name in ((1, "stdout"), (2, "stderr")):
        # Unbuffered: what was printed must be out when the process is killed, and when a client watches.
        raw = FileIO(fd, "w", closefd=False)
        raw.name = f"<{name}>"
        stream = TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", write_through=True)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def reseed():
    """Interpreters restored from one image would otherwise all draw the same numbers."""
    random.seed(int.from_bytes(os.urandom(32)))
    numpy = sys.modules.get("numpy")
    if numpy is not None and "numpy.random" in sys.modules:
        # An array, not a number: numbers differ in size, and what follows would lie elsewhere in memory.
        numpy.random.seed(numpy.frombuffer(os.urandom(32), numpy.uint32))


def run(request):
    """Run `request`, JSON in UTF-8: `{code, context, reseed}`.

    Returns two lines of compact JSON in UTF-8: the `RunnerOutcome` of guest-messages.ts, and the result's value. The server passes
    the value on as these bytes.
    """
    request = loads(request)
    if request["reseed"]:
        reseed()
    forget_folders()
    display.reset()
    restrictions.begin()
    main = sys.modules["__main__"].__dict__
    if request["context"] is not None:
        main.update(_load_context(request["context"]))
    outcome = {"success": True, "error": None}
    result = None
    truncated = False
    try:
        try:
            try:
                value = _evaluate(request["code"], main)
            except BaseException as error:
                display.flush_figures_after(error)
                raise
            display.flush_figures()
            result, truncated = convert.to_json_data(value)
            del value
        finally:
            _flush()
    except (SystemExit, restrictions.ProcessExit) as stop:
        code = stop.code
        is_status = issubclass(type(code), int)
        if code is not None and not (is_status and int.__eq__(code, 0)):
            outcome.update(_failure(stop, f"exited with status {convert.describe(code)}" if is_status else None))
    except BaseException as error:
        outcome.update(_failure(error))
    if truncated:
        outcome["truncated"] = True
    return b"\n".join((_to_json(outcome), _to_json(result if outcome["success"] else None)))


def _to_json(value):
    text = dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate, which UTF-8 does not have
        return dumps(value, allow_nan=False, separators=(",", ":")).encode()


def _load_context(text):
    """Integers of any size, whatever `sys.get_int_max_str_digits()` is: the text is no longer than 10,000 characters."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        return loads(text)
    finally:
        sys.set_int_max_str_digits(limit)


def forget_folders():
    """Folders were filled, and packages mounted, behind the back of the import system's caches.

    Not `importlib.invalidate_caches()`: that reads the directory of the standard library's archive anew, 20 ms.
    """
    cache = sys.path_importer_cache
    for path, finder in list(cache.items()):
        if finder is None:
            del cache[path]
        elif type(finder) is FileFinder:
            finder.invalidate_caches()


def _evaluate(code, main):
    tracebacks.remember_source(code)
    try:
        tree = compile(code, tracebacks.CODE_NAME, "exec", ast.PyCF_ONLY_AST | _FLAGS, dont_inherit=True)
    except SyntaxError as error:
        code, tree = notebook.parse(code, tracebacks.CODE_NAME, error)
    last = None
    if tree.body and isinstance(tree.body[-1], ast.Expr) and not _ends_in_semicolon(code, tree.body[-1].end_lineno):
        last = ast.Expression(tree.body.pop().value)
    value = None
    if tree.body:
        _run_compiled(compile(tree, tracebacks.CODE_NAME, "exec", _FLAGS, dont_inherit=True), main)
    if last is not None:
        value = _run_compiled(compile(last, tracebacks.CODE_NAME, "eval", _FLAGS, dont_inherit=True), main)
    return value


def _run_compiled(compiled, main):
    if compiled.co_flags & CO_COROUTINE:
        return _current_loop().run_until_complete(eval(compiled, main))
    return eval(compiled, main)


def _current_loop():
    """The loop of the session, or a new one where user code closed it."""
    global _loop
    if _loop.is_closed():
        _loop = eventloop.BlockingEventLoop()
    events.set_event_loop(_loop)
    return _loop


def _ends_in_semicolon(code, last_line):
    """A notebook shows no value for `x;`."""
    # Cutting it into tokens takes time that most code need not take.
    if not any(";" in line for line in tracebacks.source_lines()[last_line - 1 :]):
        return False
    last = None
    try:
        for token in tokenize.generate_tokens(StringIO(code).readline):
            if token.type not in (
                tokenize.COMMENT,
                tokenize.NL,
                tokenize.NEWLINE,
                tokenize.ENDMARKER,
                tokenize.INDENT,
                tokenize.DEDENT,
            ):
                last = token
    except (tokenize.TokenError, SyntaxError):
        return False
    return last is not None and last.string == ";"


def _failure(error, message=None):
    info = tracebacks.describe_exception(error)
    if message is not None:
        info["message"] = message
    try:
        sys.stderr.write(info["traceback"])
        _flush()
    except BaseException:
        os.write(2, info["traceback"].encode("utf-8", "backslashreplace"))
    return {"success": False, "error": info["message"], "errorInfo": info}


def _flush():
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            stream.flush()
        except KeyboardInterrupt:  # a timeout
            raise
        except BaseException:
            pass
