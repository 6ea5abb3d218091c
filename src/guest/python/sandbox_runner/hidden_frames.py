"""Keeps the runner's frames out of what the standard library shows of stacks and tracebacks, as if the program ran on its own.

Whatever walks over frames is wrapped, so each function that shows some has them without ours: `traceback.print_stack`, `logging`'s
`stack_info`, `inspect.stack` and the rest. What ours call of the standard library, the event loop, goes with them.
"""

import functools
import inspect
import logging
import sys
import traceback

from .tracebacks import is_system_code, is_system_file

_FOLDER = f"{__file__.rpartition('/')[0]}/"


def install():
    """Called once, before the memory image is taken."""
    traceback.walk_tb = _wrapped(traceback.walk_tb, _of_traceback)
    traceback._walk_tb_with_full_positions = _wrapped(traceback._walk_tb_with_full_positions, _of_traceback)
    traceback.walk_stack = _from_caller(_wrapped(traceback.walk_stack, _of_stack))
    inspect.getinnerframes = _wrapped(inspect.getinnerframes, lambda entries: [*_of_traceback(entries)])
    inspect.getouterframes = _wrapped(inspect.getouterframes, lambda entries: [*_of_stack(entries)])
    logging.Logger.findCaller = _of_caller(logging.Logger.findCaller)


def _wrapped(walk, without_ours):
    @functools.wraps(walk)
    def walk_others(*args, **options):
        return without_ours(walk(*args, **options))

    return walk_others


def _is_ours(entry):
    return entry[0].f_code.co_filename.startswith(_FOLDER)


def _of_traceback(entries):
    """Entries begin with their frame, and the outermost is the first of them."""
    is_below_ours = False
    for entry in entries:
        if _is_ours(entry):
            is_below_ours = True
        elif not is_below_ours or not is_system_code(entry[0].f_code):
            is_below_ours = False
            yield entry


def _of_stack(entries):
    """As `_of_traceback`, with the outermost as the last."""
    held = []
    for entry in entries:
        if _is_ours(entry):
            held.clear()
        elif is_system_code(entry[0].f_code):
            held.append(entry)
        else:
            yield from held
            held.clear()
            yield entry
    yield from held


def _from_caller(walk_stack):
    @functools.wraps(walk_stack)
    def from_frame(f):
        return walk_stack(sys._getframe().f_back if f is None else f)

    return from_frame


def _of_caller(find_caller):
    @functools.wraps(find_caller)
    def find_other(self, stack_info=False, stacklevel=1):
        found = find_caller(self, stack_info, stacklevel)
        # Where the stack is not so deep, its outermost frame is meant.
        while stacklevel > 1 and is_system_file(found[0]):
            stacklevel -= 1
            found = find_caller(self, stack_info, stacklevel)
        return found

    return find_other
