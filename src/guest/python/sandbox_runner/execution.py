"""One execution: compile, run, convert, answer."""

import ast
import builtins
import os
import sys
import tokenize
from importlib.machinery import FileFinder
from inspect import CO_COROUTINE
from io import FileIO, StringIO, TextIOWrapper

# By name, so that code that patches `json` patches its own only.
from json import JSONEncoder, loads

from . import (
    convert,
    display,
    editor_help,
    ending,
    eventloop,
    hidden_frames,
    imports,
    interactive_shell,
    namespaces,
    notebook,
    process_environment,
    restrictions,
    seeds,
    sources,
    tool_calls,
    tracebacks,
)

_PACKAGES_PATH = "/lib/packages"
"""A caller's own, as `guest/interpreter/layout.ts` mounts them."""
_FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
_never_freed = []
"""Of a stateless execution: the rewind takes it."""
_encode = JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode
_encode_in_ascii = JSONEncoder(allow_nan=False, separators=(",", ":")).encode


def prepare():
    """Called once, before the memory image is taken."""
    restrictions.install()
    imports.install()
    eventloop.install()
    sources.install()
    hidden_frames.install()
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


_prints_traceback = True


def run(program):
    """Run a program: the `Program` of messages.ts, as JSON in UTF-8.

    Returns three lines in UTF-8: the `ErrorInfo` of guest-messages.ts as compact JSON, or `null`; `cut` if the value was cut, or
    nothing; the value as compact JSON. The server passes the value on as these bytes.
    """
    global _prints_traceback
    program = loads(program)
    _prints_traceback = program.get("printTraceback", True)
    sources.is_counted = program.get("isCounted", True)
    if program["reseed"]:
        seeds.reseed()
    if program["execution"] is None and "env" not in program:
        return _run_program(program)
    try:
        if "start" in program:
            process_environment.begin_session(program["start"])
        if "env" in program or process_environment.has_to_begin():
            process_environment.begin(program.get("env"))
        if "namespace" in program:
            namespaces.enter(program["namespace"])
    except Exception as error:  # no room for a folder, or a file in its place
        process_environment.end()
        return _answer(_failure(error), False, None)
    try:
        return _run_program(program)
    finally:
        # What atexit handlers see is the execution's; of a stateless one nothing stays.
        if program["execution"] is not None:
            _leave()


def _leave():
    while True:
        try:
            process_environment.end()
            namespaces.leave()
            return
        except KeyboardInterrupt:  # a timeout that came after the code had ended
            pass


def _run_program(program):
    if "question" in program:
        return _answer_question(program["question"])
    main = sys.modules["__main__"].__dict__
    if program["execution"] is not None:
        forget_folders()
        # A session's next execution may warn of the same on the same line: it is another line.
        main.pop("__warningregistry__", None)
    if program["context"] is not None:
        main.update(_load_context(program["context"]))
    if "argv" in program:
        sys.argv[:] = program["argv"]
        sources.program = main["__file__"] = os.path.abspath(sys.argv[0])
    if program["tools"] is not None or tool_calls.is_offering():
        tool_calls.begin(program["tools"], main)
    return _run(program["code"], program["execution"], False, program.get("display"))


def _answer_question(question):
    forget_folders()
    try:
        return _answer(None, False, editor_help.answer(question))
    except BaseException as error:  # also a timeout
        return _answer(tracebacks.describe_exception(error), False, None)


def run_plain(code):
    """As `run`, for what most executions are: no session, no context, no tools, and the host has seeded what is to be."""
    return _run(code, None, False)


def run_line(code):
    """As `run_plain`, for code that looks like an expression, all of it, and that no warning is said of before that is known."""
    return _run(code, None, True)


def _run(code, execution, is_line, mode=None):
    display.reset(mode)
    restrictions.begin()
    main = sys.modules["__main__"].__dict__
    info = None
    truncated = False
    result = None
    failed = []
    try:
        try:
            values, line = _evaluate(code, execution, main, is_line)
            in_session = execution is not None
            kept = values[0] if in_session and sources.is_counted else None
            if _is_plain(values[0]) and not display.may_have_figures():
                # Of None there is nothing to convert.
                if values[0] is not None:
                    if mode is not None:
                        display.send_value(values[0])
                    result, truncated = convert.to_json_data(values.pop())
            else:
                result, truncated = tracebacks.call_on_line(line, _finish, values)
            if in_session and sources.is_counted:
                interactive_shell.shell.keep_result(sources.number_of_execution, kept)
                del kept
        except BaseException as error:
            failed.append(error)
            line = tracebacks.position(error)[0] or 1
        if failed:
            info = tracebacks.call_on_line(line, _fail, failed)
        else:
            _flush()
    except BaseException as error:  # a timeout that came after the code had ended
        info = _failure(error)
    return _answer(info, truncated or display.is_cut, result)


def _answer(info, truncated, result):
    if info is None and result is None and not truncated:
        return b"null\n\nnull"
    return b"\n".join((_to_json(info), b"cut" if truncated else b"", _to_json(result if info is None else None)))


def _to_json(value):
    try:
        return _encode(value).encode()
    except UnicodeEncodeError:  # a lone surrogate, which UTF-8 does not have
        return _encode_in_ascii(value).encode()


def _load_context(text):
    """Integers of any size, whatever `sys.get_int_max_str_digits()` is: the text is no longer than 10,000 characters."""
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        return loads(text)
    finally:
        sys.set_int_max_str_digits(limit)


def _is_plain(value):
    """Whether no code runs when `value` is converted or goes."""
    kind = type(value)
    return value is None or kind is int or kind is str or kind is float or kind is bool


def _finish(values):
    """Show what code has left, and convert the value of its last expression: the last reference to it goes here."""
    display.show_what_is_left(values[0])
    return convert.to_json_data(values.pop())


def _fail(errors):
    """As `_finish`, after code that raised. Returns what its error is told as; None for an exit that is no error."""
    error = errors.pop()
    if sources.number_of_execution == 0 and tracebacks.is_deep(error):
        _never_freed.append(error)
    display.flush_figures_after(error)
    _flush()
    if isinstance(error, (SystemExit, restrictions.ProcessExit)):
        code = error.code
        is_status = issubclass(type(code), int)
        if code is None or (is_status and int.__eq__(code, 0)):
            return None
        text = _exit_status(code) if is_status else convert.describe(code)
        # Of a program that exits, Python shows no more than the text that it exits with; a session goes on, as a notebook.
        is_program = sources.program is not None or sources.number_of_execution == 0
        shown = ("" if is_status else f"{text}\n") if is_program else None
        return _failure(error, f"exited with status {text}" if is_status else None, shown)
    return _failure(error)


def _exit_status(code):
    """A process's status as CPython takes it from an integer: -1 for what no C ``long`` of 64 bits holds."""
    status = int.__index__(code)
    return int.__repr__(status if -(1 << 63) <= status < 1 << 63 else -1)


def stays(folder):
    """Whether a folder is the same in every execution on an image."""
    return folder.startswith("/lib/") and not folder.startswith(_PACKAGES_PATH)


def forget_folders():
    """Folders were filled, and packages mounted, behind the back of the import system's caches.

    Of an image they know only what stays as it is, so a stateless execution need not do this.
    Not `importlib.invalidate_caches()`: that reads the directory of the standard library's archive anew, 20 ms.
    """
    cache = sys.path_importer_cache
    for path, finder in list(cache.items()):
        if stays(path):
            continue
        if finder is None:
            del cache[path]
        elif type(finder) is FileFinder:
            finder.invalidate_caches()


def _evaluate(code, execution, main, is_line):
    """Returns the value of the last expression, alone in a list, and the line of the last statement."""
    sources.begin(code, execution)
    if is_line:
        try:
            compiled = compile(code, sources.name, "eval", _FLAGS, dont_inherit=True)
        except SyntaxError:
            pass  # It is no expression, or wrong: what follows tells.
        else:
            if compiled.co_flags & CO_COROUTINE:
                return [eventloop.run_top_level(eval(compiled, main))], 1
            return [eval(compiled, main)], 1
    try:
        tree = compile(code, sources.name, "exec", ast.PyCF_ONLY_AST | _FLAGS, dont_inherit=True)
    except SyntaxError as error:
        code, tree = notebook.parse(code, sources.name, error)
    else:
        if "In [" in code and tree.body and notebook.has_prompts(tree) and interactive_shell.keeps_sources(main):
            code, tree = notebook.parse(code, sources.name)
    last = None
    line = tree.body[-1].lineno if tree.body else 1
    if tree.body and isinstance(tree.body[-1], ast.Expr) and not _ends_in_semicolon(code, tree.body[-1].end_lineno):
        last = ast.Expression(tree.body.pop().value)
    if tool_calls.is_checking:
        tool_calls.check(tree, last, main)
    awaits = 0
    if tree.body:
        compiled = compile(tree, sources.name, "exec", _FLAGS, dont_inherit=True)
        awaits = compiled.co_flags & CO_COROUTINE
        if awaits:
            eventloop.run_top_level(eval(compiled, main))
        else:
            eval(compiled, main)
    if last is None:
        return [None], line
    compiled = compile(last, sources.name, "eval", _FLAGS, dont_inherit=True)
    if compiled.co_flags & CO_COROUTINE:
        return [eventloop.run_top_level(eval(compiled, main))], line
    if awaits:
        return [eventloop.run_top_level(_evaluate_in_loop(compiled, main))], line
    return [eval(compiled, main)], line


async def _evaluate_in_loop(compiled, main):
    """What awaits nothing itself, at the end of code that does."""
    return eval(compiled, main)


def _ends_in_semicolon(code, last_line):
    """A notebook shows no value for `x;`."""
    # Cutting it into tokens takes time that most code need not take.
    if not any(";" in line for line in sources.lines()[last_line - 1 :]):
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


def _failure(error, message=None, shown=None):
    info = tracebacks.describe_exception(error)
    if message is not None:
        info["message"] = message
    if shown is None:
        if not _prints_traceback:
            _flush()
            return info
        shown = info["traceback"]
    try:
        sys.stderr.write(shown)
        _flush()
    except BaseException:
        os.write(2, shown.encode("utf-8", "backslashreplace"))
    return info


def _flush():
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            stream.flush()
        except KeyboardInterrupt:  # a timeout
            raise
        except BaseException:
            pass
