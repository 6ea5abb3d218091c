"""Exceptions as a reader of the code that was sent wants to see them: the user's frames, nothing of ours."""

import sys
import traceback
from types import FunctionType

from . import convert, sources

MAX_NAME_CHARACTERS = 1000
MAX_MESSAGE_CHARACTERS = 100_000
MAX_TRACEBACK_CHARACTERS = 200_000
_MAX_CHAIN = 100
_SYSTEM_PREFIXES = ("/lib/python", "/lib/importlib_bootstrap/", "<frozen ")


def is_system_code(code):
    """Whether it is Python's own or ours."""
    return code.co_filename.startswith(_SYSTEM_PREFIXES)


def call_on_line(line, function, argument):
    """`function(argument)`, called by a frame that has this line of the user's code: it is what warnings name.

    For calls after that code has ended, when it has no frame any more.
    """
    code = _CALL.replace(co_filename=sources.name, co_firstlineno=line)
    return FunctionType(code, sys.modules["__main__"].__dict__)(function, argument)


def _without_columns(code):
    """`code` as one line, in the format of `Objects/locations.md`: entries of up to eight instructions that have no column."""
    count = len(code.co_code) // 2
    sizes = [min(8, count - start) for start in range(0, count, 8)]
    table = b"".join(bytes((0x80 | 13 << 3 | size - 1, 0)) for size in sizes)
    return code.replace(co_name="<module>", co_qualname="<module>", co_linetable=table)


_CALL = _without_columns((lambda function, argument: function(argument)).__code__)


def describe_exception(error):
    """Returns the `errorInfo` of the HTTP contract: type, message, traceback, line and column (1-based, or None)."""
    _explain(error)
    line, column = position(error)
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


def position(error):
    """Line and column in the code that was sent, 1-based; None: nowhere in it."""
    if isinstance(error, SyntaxError) and error.filename == sources.name:
        return _positive(error.lineno), _positive(error.offset)
    line = column = None
    for frame, frame_line in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename == sources.name:
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
        if tb.tb_frame.f_code.co_filename == sources.name and tb.tb_lineno == line:
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
