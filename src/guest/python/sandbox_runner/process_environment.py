"""Environment variables and the working directory that an execution, or a session, is given from outside.

Variables of one execution are taken away when it has ended, in a session too, where what code has put in their place stays.
"""

import os

from . import saved_images

HOME = "/home/pyodide"

# The object itself: code may give `os` another one, which is its own affair.
_environ = os.environ
_taken = object()
_given = []
"""Name, value and what was there before, of each variable of the execution."""
_start = []
"""What the session has still to begin with: it is tried again where there was no room, or a file in its place."""


def begin_session(start):
    """Remember what the session begins with: the `SessionStart` of messages.ts."""
    _start[:] = [start]


def begin(variables):
    """Called when an execution begins that has variables, or a session that begins. Raises OSError if the folder cannot be made."""
    end()
    if _start:
        start = _start[0]
        for name, value in (start.get("env") or {}).items():
            _environ[name] = value
        if start.get("cwd"):
            enter(start["cwd"])
        if start.get("showsSavedImages"):
            saved_images.begin()
        _start.clear()
    for name, value in (variables or {}).items():
        _given.append((name, value, _environ.get(name, _taken)))
        _environ[name] = value


def end():
    """Take the execution's variables away."""
    while _given:
        name, value, before = _given[-1]
        if _environ.get(name) == value:
            if before is _taken:
                del _environ[name]
            else:
                _environ[name] = before
        _given.pop()


def has_to_begin():
    return bool(_start or _given)


def enter(folder):
    """Make a folder the working directory; it is made where it is not there."""
    os.makedirs(folder, exist_ok=True)
    os.chdir(folder)
