"""Namespaces of a session: several sets of global variables in one interpreter.

Each is a module of its own that is `__main__` while its execution runs, so that whatever looks for the program's names, `pickle` for one, finds them.
Between executions `__main__` is the default one. The host says which there are, by keys that are never used again: what it
names no more goes.
"""

import builtins
import gc
import os
import sys
import types
from importlib.machinery import BuiltinImporter

from . import interactive_shell, process_environment, sources

_others = {}
"""Key → namespace, of all but the default one."""
_default_key = ""
_entered = None
"""Of the execution that runs, unless it is in the default one."""


class _Namespace:
    """What its executions find as they have left it."""

    def __init__(self, folder=None):
        self.module = types.ModuleType("__main__")
        self.module.__dict__.update(__builtins__=builtins, __loader__=BuiltinImporter)
        self.module.__dict__.update(interactive_shell.shell.predefined)
        self.results = None, None
        self.number = 0
        self.folder = folder
        """Its own working directory; None: it has the session's."""


class _Entered:
    """A namespace whose execution runs, and what the default one had before."""

    def __init__(self, namespace):
        self.namespace = namespace
        self.module = sys.modules.get("__main__")
        self.results = interactive_shell.shell.results
        self.number = sources.number_of_execution
        self.folder = None if namespace.folder is None else _working_directory()
        self.left = None
        """What the execution has left: results, number, folder."""


def enter(place):
    """Called when an execution of a session begins: `place` is the `NamespacePlace` of messages.ts. Raises OSError where its folder cannot be made."""
    global _default_key, _entered
    leave()
    key, default_key = place["key"], place["defaultKey"]
    gone = [other for other in _others if other not in place["keys"]]
    for other in gone:
        del _others[other]
    if default_key != _default_key:
        gone.append(_default_key)
        sys.modules["__main__"] = _Namespace().module
        interactive_shell.shell.results = None, None
        sources.number_of_execution = 0
        _default_key = default_key
    if gone:
        # Functions and their global variables refer to each other.
        gc.collect()
    if key == default_key:
        return
    namespace = _others.get(key)
    if namespace is None:
        namespace = _others[key] = _Namespace(place.get("cwd"))
    entered = _Entered(namespace)
    if namespace.folder is not None:
        process_environment.enter(namespace.folder)
    _entered = entered
    sys.modules["__main__"] = namespace.module
    interactive_shell.shell.results = namespace.results
    sources.number_of_execution = namespace.number
    sources.prefix = f"{place['name']} "


def leave():
    """Called when an execution has ended: the default namespace is `__main__` again. It may be interrupted, and called again."""
    global _entered
    entered = _entered
    if entered is None:
        return
    namespace = entered.namespace
    if entered.left is None:
        folder = None if entered.folder is None else _working_directory()
        entered.left = interactive_shell.shell.results, sources.number_of_execution, folder
    namespace.results, namespace.number, namespace.folder = entered.left
    sys.modules["__main__"] = entered.module
    interactive_shell.shell.results = entered.results
    sources.number_of_execution = entered.number
    sources.prefix = ""
    if entered.folder is not None:
        try:
            os.chdir(entered.folder)
        except OSError:  # deleted meanwhile
            os.chdir(process_environment.HOME)
    _entered = None


def _working_directory():
    try:
        return os.getcwd()
    except OSError:
        return process_environment.HOME
