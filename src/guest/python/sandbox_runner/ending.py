"""What Python does when a program ends: `atexit`, finalisers, files that were left open.

Nothing is freed: the rewind takes the memory. So only what can be seen of an end happens, and a program that left nothing that would
show pays for a look at a few counters. ``guest/interpreter/ending.ts`` calls these functions, and between them the finalisers of the objects that it is
given: as the garbage collector would, with all global names still there.
"""

import _io
import atexit
import gc
import sys
import types
import weakref
from array import array
from traceback import walk_tb

from .tracebacks import is_system_code

_STANDARD_LIBRARY = "/lib/python"
_FLUSHABLE = {"_io", "gzip", "bz2", "lzma", "compression.gzip", "compression.bz2", "compression.lzma"}
_mro = type.__dict__["__mro__"].__get__
_dict = type.__dict__["__dict__"].__get__

_at_checkpoint = None
_abandoned = False
_objects = []
_connections = []


def remember():
    """Called before a memory image is taken: what exists now is not the program's."""
    global _at_checkpoint
    _at_checkpoint = _registered()


def abandon():
    """`os._exit` was called, after which Python does nothing more."""
    global _abandoned
    _abandoned = True


def end_if_registered():
    """As `end`, if handlers may be registered. Called where neither the code nor open files require an end already."""
    if _registered() == _at_checkpoint or not (_has_registered() or _has_foreign_modules()):
        return b""
    return end()


def end():
    """Run the `atexit` handlers. Returns 32-bit words: the number of the program's own objects, then the addresses of all objects to finalise."""
    if _abandoned:
        return b""
    hook = sys.unraisablehook
    sys.unraisablehook = ours = _without_interrupts_of_others(hook)
    atexit._run_exitfuncs()
    if sys.unraisablehook is ours:
        sys.unraisablehook = hook
    if _abandoned:
        return b""
    _flush_standard_streams()
    return _take(*_find(_finaliser_kind))


def _without_interrupts_of_others(hook):
    """A timeout that a handler has met with interrupts those after it, `logging.shutdown` for one: that is no news of the program."""

    def unraisablehook(unraisable):
        is_interrupt = unraisable.exc_type is KeyboardInterrupt
        if not is_interrupt or any(not is_system_code(frame.f_code) for frame, _ in walk_tb(unraisable.exc_traceback)):
            hook(unraisable)

    return unraisablehook


def end_files():
    """As `end`, after a timeout: close files, run no more code of the program."""
    if _abandoned:
        return b""
    return _take([], _find(_finaliser_kind)[1])


def finish():
    for connection in _connections:
        # Freeing a connection closes it and rolls back: nothing is freed here, so close it.
        sys.modules["_sqlite3"].Connection.close(connection)
    _connections.clear()
    _objects.clear()
    _flush_standard_streams()
    return b""


def flush_files():
    """Write what files hold back, which stay open: what a session's execution ends with."""
    for file in _outermost_first(_find(_flushable_kind)[1]):
        try:
            if not file.closed and file.writable():
                file.flush()
        except Exception:
            pass
    return b""


def _registered():
    logging = sys.modules.get("logging")
    return (
        atexit._ncallbacks(),
        len(weakref.finalize._registry),
        len(logging._handlerList) if logging is not None else 0,
        len(sys.modules),
    )


def _has_registered():
    return _registered()[:3] != _at_checkpoint[:3]


def _has_foreign_modules():
    """Whether modules outside of the standard library were imported: their classes may have finalisers."""
    for name in [*sys.modules][_at_checkpoint[3] :]:
        module = sys.modules.get(name)
        file = module.__dict__.get("__file__") if isinstance(module, types.ModuleType) else ""
        if isinstance(file, str) and not file.startswith(_STANDARD_LIBRARY):
            return True
    return False


def _take(own, files):
    # Keep references until all are finalised: an earlier object may hold the last reference to a later one.
    _objects[:] = own + _outermost_first(files)
    return array("I", [len(own), *map(id, _objects)]).tobytes()


def _find(kind_of):
    """Objects made since the baseline, roughly in order of creation: instances of the program's classes, and files."""
    found = {"own": [], "file": [], "task": [], "connection": _connections}
    kinds = {}
    for generation in (2, 1, 0):
        for thing in gc.get_objects(generation):
            cls = type(thing)
            # Key by address: a metaclass may define any `__hash__`.
            address = id(cls)
            kind = kinds.get(address, kinds)
            if kind is kinds:
                kind = kinds[address] = kind_of(cls)
            if kind is not None and not gc.is_finalized(thing):
                found[kind].append(thing)
    own = found["own"]
    # The garbage collector does not track objects without attributes.
    for thing in [*sys.modules["__main__"].__dict__.values()]:
        if not gc.is_tracked(thing) and kind_of(type(thing)) == "own":
            own.append(thing)
    awaited = set()
    for task in found["task"]:
        # The event loop ends what a task runs.
        coroutine = task.get_coro()
        while coroutine is not None:
            awaited.add(id(coroutine))
            coroutine = getattr(coroutine, "cr_await", None)
    return [thing for thing in own if id(thing) not in awaited], found["file"]


def _finaliser_kind(cls):
    classes = _mro(cls)
    sqlite = sys.modules.get("_sqlite3")
    if sqlite is not None and sqlite.Connection in classes:
        return "connection"
    for base in classes:
        finaliser = _dict(base).get("__del__")
        if finaliser is None:
            continue
        if isinstance(finaliser, types.FunctionType):
            is_own = not finaliser.__code__.co_filename.startswith(_STANDARD_LIBRARY)
            return "own" if is_own else "file"
        if cls is types.GeneratorType or cls is types.CoroutineType:
            return "own"
        if cls is types.AsyncGeneratorType:
            return None
        if cls.__module__ == "_asyncio":
            return "task" if hasattr(cls, "get_coro") else None
        return "file"
    return None


def _flushable_kind(cls):
    if _io._IOBase in _mro(cls) and _dict(cls).get("__module__", "_io") in _FLUSHABLE:
        return "file"
    return None


def _outermost_first(files):
    """Files ordered so that one which writes to another (a compressed one) comes before it, whichever was made first."""
    waiting = {id(file): file for file in files}
    ordered = []
    for file in reversed(files):
        if id(file) not in waiting:
            continue
        del waiting[id(file)]
        # Depth first, by hand: chains may be longer than the stack is deep.
        path = [(file, _behind(file, waiting))]
        while path:
            current, inner = path[-1]
            following = next(inner, None)
            if following is None:
                ordered.append(current)
                path.pop()
            elif id(following) in waiting:
                del waiting[id(following)]
                path.append((following, _behind(following, waiting)))
    return ordered[::-1]


def _behind(file, waiting):
    """What of `waiting` a file refers to."""
    for thing in gc.get_referents(file):
        if id(thing) in waiting:
            yield thing
        elif type(thing) in (dict, list, tuple):
            for inner in gc.get_referents(thing):
                if id(inner) in waiting:
                    yield inner


def _flush_standard_streams():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass
