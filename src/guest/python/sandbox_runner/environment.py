"""Builds an environment's image: imports its packages, once and for all."""

import gc
import importlib
import json
import linecache
import os
import sys
import warnings

from . import display, ending, execution, figures, interactive_shell, seeds, sources

_ENVIRONMENT_PATH = "/lib/environment"
_SPECIALIZING_RUNS = 256
_NAMES_OF_MAIN = {"__name__", "__doc__", "__package__", "__loader__", "__spec__", "__builtins__"}


def perform(request):
    """Do one step: `[function, ...parameters]` as JSON. Returns why it failed, in UTF-8; nothing if it did not."""
    name, *parameters = json.loads(request)
    return (globals()[name](*parameters) or "").encode("utf-8", "backslashreplace")


def import_module(name):
    """Import a module for the image. Returns why it failed; an empty string if it did not."""
    # The first import of matplotlib decides; Pyodide's own default wants a page to draw on.
    os.environ["MPLBACKEND"] = "agg"
    importlib.invalidate_caches()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            importlib.import_module(name)
        except BaseException as error:  # also one that exits
            return f"{type(error).__name__}: {error}"
    return ""


def finish_base():
    """Tidy up before the base image is taken. Returns Python's version."""
    _specialize()
    _tidy_up()
    # What a base image knows of the environment's folder is that it is empty.
    _forget_folders(lambda path: not path.startswith(_ENVIRONMENT_PATH))
    return sys.version.split()[0]


def finish(aliases):
    """Bind global names, `{name: module}`, and tidy up."""
    _tidy_up({alias: sys.modules[name] for alias, name in aliases.items() if name in sys.modules})
    _forget_folders()


def _specialize():
    """Have the runner run until Python has specialized its code.

    Python's interpreter adapts code to what it does, in the code itself. In an image that holds it as it was compiled each execution would begin
    with that anew, and never end it: half of the pages that `print(1+1)` writes to.
    """
    for _ in range(_SPECIALIZING_RUNS):
        for code in ("None", "1", "'a'"):
            execution.run_line(code)
            ending.end_if_registered()
        for code in ("x = 1", "x = 1\nx", "x = 1\nNone"):
            execution.run_plain(code)
            ending.end_if_registered()
    linecache.cache.pop(sources.STATELESS_NAME)


def _forget_folders(stays=lambda path: True):
    """Leave in the import system's cache only folders that are in every execution what they are now: a stateless one relies on it."""
    cache = sys.path_importer_cache
    for path in [*cache]:
        if not execution.stays(path) or not stays(path):
            del cache[path]


def _tidy_up(names={}):
    """Leave in `__main__` what Python puts there, and `names`."""
    main = sys.modules["__main__"].__dict__
    for name in main.keys() - _NAMES_OF_MAIN:
        del main[name]
    main.update(names)
    interactive_shell.shell.predefined = names
    ending.remember()
    seeds.remember()
    for generation in range(3):
        gc.collect(generation)
    # Freeze: otherwise each collection writes to every object of the image, and sessions grow by that.
    gc.freeze()


def collect():
    """Close what nothing refers to any more."""
    gc.collect()


def prepare_matplotlib():
    """Make figures go out with the reply. Returns why that failed, as `import_module` does."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _prepare(pyplot)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def _prepare(pyplot):
    pyplot.switch_backend("agg")

    def show(*_args, **_kwargs):
        """Send every open figure as a PNG and close it."""
        display.flush_figures()

    pyplot.show = show
    # The first figure loads fonts and tables that every later one would otherwise wait for.
    figure = pyplot.figure()
    figure.add_subplot().plot([0, 1])
    figures.to_png(figure)
    pyplot.close("all")
