"""Exceptions as a reader of the code that was sent wants to see them: the user's frames, nothing of ours."""

import sys
import traceback
from collections import deque
from types import FunctionType

from . import convert, sources

MAX_NAME_CHARACTERS = 1000
MAX_MESSAGE_CHARACTERS = 100_000
MAX_TRACEBACK_CHARACTERS = 200_000
_MAX_CHAIN = 100
_MAX_FRAMES = 1000
_MAX_FREED_FRAMES = 50_000
_REPEATS_SHOWN = traceback._RECURSIVE_CUTOFF
_SYSTEM_PREFIXES = ("/lib/python", "/lib/importlib_bootstrap/", "<frozen ")


def is_system_code(code):
    """Whether it is Python's own or ours."""
    return is_system_file(code.co_filename)


def is_system_file(filename):
    return filename.startswith(_SYSTEM_PREFIXES)


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
    if not isinstance(error, (AttributeError, EOFError, ImportError)):
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
        # Its frames are looked at here: deep recursion leaves hundreds of thousands, of which few are shown.
        summary = traceback.TracebackException.from_exception(error, limit=0)
        _add_user_frames(summary, error)
        return _shorten("".join(summary.format()), MAX_TRACEBACK_CHARACTERS)
    except KeyboardInterrupt:  # a timeout
        raise
    except BaseException:
        return f"{convert.class_name(error)}\n"


def _shorten(text, limit):
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit} more characters)"


def _add_user_frames(summary, error, depth=0):
    if summary is None:
        return
    if depth == _MAX_CHAIN:
        summary.__cause__ = summary.__context__ = summary.exceptions = None
    if summary._str is not None:
        summary._str = _shorten(summary._str, MAX_MESSAGE_CHARACTERS)
    summary.stack = _stack_of(error.__traceback__)
    if summary.__cause__ is not None:
        _add_user_frames(summary.__cause__, error.__cause__, depth + 1)
    if summary.__context__ is not None:
        _add_user_frames(summary.__context__, error.__context__, depth + 1)
    if summary.exceptions:
        for inner, inner_error in zip(summary.exceptions, error.exceptions):
            _add_user_frames(inner, inner_error, depth + 1)


class _Stack(traceback.StackSummary):
    """A stack in which entries without a file are lines of text."""

    def format_frame_summary(self, entry, **options):
        return super().format_frame_summary(entry, **options) if entry.filename else f"  [{entry.name}]\n"


def _stack_of(tb):
    """The user's frames of a traceback, of at most `_MAX_FRAMES` different ones, in the form that Python shows them in."""
    first = []
    last = deque(maxlen=_MAX_FRAMES // 2)
    length = 0
    for run in _runs(tb):
        length += 1
        (first if length <= _MAX_FRAMES // 2 else last).append(run)
    stack = _Stack()
    _add_runs(stack, first)
    left_out = length - len(first) - len(last)
    if left_out > 0:
        stack.append(_line_of_text(f"{left_out} more frames"))
    _add_runs(stack, last)
    return stack


def _runs(tb):
    """Yield the user's entries of a traceback with the number of times in a row that each is there."""
    is_system = {}
    entry = code = None
    count = 0
    while tb is not None:
        next_code = tb.tb_frame.f_code
        hidden = is_system.get(id(next_code))
        if hidden is None:
            hidden = is_system[id(next_code)] = is_system_code(next_code)
        if not hidden:
            if next_code is code and tb.tb_lineno == entry.tb_lineno:
                count += 1
            else:
                if entry is not None:
                    yield entry, count
                entry, code, count = tb, next_code, 1
        tb = tb.tb_next
    if entry is not None:
        yield entry, count


def _add_runs(stack, runs):
    extended = ((tb.tb_frame, next(traceback._walk_tb_with_full_positions(tb))[1]) for tb, _ in runs)
    for summary, (_, count) in zip(_Stack._extract_from_extended_frame_gen(extended), runs):
        stack.extend([summary] * min(count, _REPEATS_SHOWN))
        if count > _REPEATS_SHOWN:
            repeated = count - _REPEATS_SHOWN
            stack.append(_line_of_text(f"Previous line repeated {repeated} more time{'s' if repeated > 1 else ''}"))


def _line_of_text(text):
    return traceback.FrameSummary("", None, text, lookup_line=False)


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


def is_deep(error):
    """Whether freeing its frames would take more of the stack than there is: each is freed by the one that it was called from."""
    tb = error.__traceback__
    for _ in range(_MAX_FREED_FRAMES):
        if tb is None:
            return False
        tb = tb.tb_next
    return True


def excepthook(kind, error, tb):
    """What `sys.excepthook` does here, for code that calls it."""
    sys.stderr.write(format_exception(error.with_traceback(tb)))
