"""Exceptions as a reader of the code that was sent wants to see them: the user's frames, nothing of ours."""

import io
import linecache
import sys
import traceback

from . import convert

CODE_NAME = "<exec>"
MAX_NAME_CHARACTERS = 1000
MAX_MESSAGE_CHARACTERS = 100_000
MAX_TRACEBACK_CHARACTERS = 200_000
_MAX_CHAIN = 100
_SYSTEM_PREFIXES = ("/lib/python", "/lib/sandbox_runner", "<frozen ")


def remember_source(code):
    """Let tracebacks quote the lines of code that never was a file."""
    # Not str.splitlines(): it also cuts where Python's own lines do not end, at a form feed or U+2028.
    lines = io.StringIO(code, newline=None).readlines()
    linecache.cache[CODE_NAME] = (len(code), None, lines, CODE_NAME)


def source_lines():
    return linecache.cache[CODE_NAME][2]


def describe_exception(error):
    """Returns the `errorInfo` of the HTTP contract: type, message, traceback, line and column (1-based, or None)."""
    _explain(error)
    line, column = _position(error)
    return {
        "type": _shorten(convert.class_name(error), MAX_NAME_CHARACTERS),
        "message": _shorten(convert.describe(error), MAX_MESSAGE_CHARACTERS),
        "traceback": format_exception(error),
        "line": line,
        "column": column,
    }


def _explain(error):
    if not isinstance(error, (AttributeError, ImportError)):
        return
    try:
        from . import explanations

        explanations.explain(error)
    except KeyboardInterrupt:  # a timeout
        raise
    except BaseException:
        pass


def format_exception(error):
    try:
        summary = traceback.TracebackException.from_exception(error, capture_locals=False)
        _keep_user_frames(summary)
        return _shorten("".join(summary.format()), MAX_TRACEBACK_CHARACTERS)
    except KeyboardInterrupt:  # a timeout
        raise
    except BaseException:
        return f"{convert.class_name(error)}\n"


def _shorten(text, limit):
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit} more characters)"


def _keep_user_frames(summary, depth=0):
    if summary is None:
        return
    if depth == _MAX_CHAIN:
        summary.__cause__ = summary.__context__ = summary.exceptions = None
    if summary._str is not None:
        summary._str = _shorten(summary._str, MAX_MESSAGE_CHARACTERS)
    frames = [frame for frame in summary.stack if not frame.filename.startswith(_SYSTEM_PREFIXES)]
    summary.stack = traceback.StackSummary.from_list(frames)
    _keep_user_frames(summary.__cause__, depth + 1)
    _keep_user_frames(summary.__context__, depth + 1)
    for inner in summary.exceptions or ():
        _keep_user_frames(inner, depth + 1)


def _position(error):
    if isinstance(error, SyntaxError) and error.filename == CODE_NAME:
        return _positive(error.lineno), _positive(error.offset)
    line = column = None
    for frame, frame_line in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename == CODE_NAME:
            line = frame_line
            column = None
    if line is not None:
        column = _column(error, line)
    return line, column


def _positive(number):
    return number if type(number) is int and number > 0 else None


def _column(error, line):
    tb = error.__traceback__
    found = None
    while tb is not None:
        if tb.tb_frame.f_code.co_filename == CODE_NAME and tb.tb_lineno == line:
            found = tb
        tb = tb.tb_next
    if found is None:
        return None
    for index, (start, _, start_column, _) in enumerate(found.tb_frame.f_code.co_positions()):
        if index * 2 == found.tb_lasti and start_column is not None:
            return start_column + 1
    return None


def excepthook(kind, error, tb):
    """What `sys.excepthook` does here, for code that calls it."""
    sys.stderr.write(format_exception(error.with_traceback(tb)))
