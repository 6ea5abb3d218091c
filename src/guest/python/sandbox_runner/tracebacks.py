"""Exceptions as a reader of the code that was sent wants to see them: the user's frames, nothing of ours."""

import linecache
import sys
import traceback

CODE_NAME = "<exec>"
_SYSTEM_PREFIXES = ("/lib/python", "/lib/sandbox_runner", "<frozen ")


def remember_source(code):
    """Let tracebacks quote the lines of code that never was a file."""
    linecache.cache[CODE_NAME] = (len(code), None, code.splitlines(keepends=True), CODE_NAME)


def describe_exception(error):
    """Returns the `errorInfo` of the HTTP contract: type, message, traceback, line and column (1-based, or None)."""
    line, column = _position(error)
    try:
        message = str(error)
    except Exception:
        message = f"<{type(error).__name__}: str() raised>"
    return {
        "type": type(error).__name__,
        "message": message,
        "traceback": format_exception(error),
        "line": line,
        "column": column,
    }


def format_exception(error):
    try:
        summary = traceback.TracebackException.from_exception(error, capture_locals=False)
    except Exception:
        return f"{type(error).__name__}\n"
    _keep_user_frames(summary, set())
    try:
        return "".join(summary.format())
    except Exception:
        return f"{type(error).__name__}\n"


def _keep_user_frames(summary, seen):
    if summary is None or id(summary) in seen:
        return
    seen.add(id(summary))
    frames = [frame for frame in summary.stack if not frame.filename.startswith(_SYSTEM_PREFIXES)]
    summary.stack = traceback.StackSummary.from_list(frames)
    _keep_user_frames(summary.__cause__, seen)
    _keep_user_frames(summary.__context__, seen)
    for inner in summary.exceptions or ():
        _keep_user_frames(inner, seen)


def _position(error):
    if isinstance(error, SyntaxError) and error.filename == CODE_NAME:
        return error.lineno, error.offset
    line = column = None
    for frame, frame_line in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename == CODE_NAME:
            line = frame_line
            column = None
    if line is not None:
        column = _column(error, line)
    return line, column


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
