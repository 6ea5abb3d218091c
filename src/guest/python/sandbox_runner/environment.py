"""Builds an environment's image: imports its packages, once and for all."""

import gc
import importlib
import json
import os
import sys
import warnings

from . import display


def build(definition):
    """Import what `definition` (`{imports, aliases}` of a `GuestEnvironment` as JSON) names. Returns `{module: why it failed}` as JSON."""
    definition = json.loads(definition)
    failed = {}
    # Whoever imports matplotlib first decides; Pyodide's own default wants a page to draw on.
    os.environ["MPLBACKEND"] = "agg"
    importlib.invalidate_caches()
    sys.path_importer_cache.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in definition["imports"]:
            try:
                importlib.import_module(name)
            except Exception as error:
                failed[name] = f"{type(error).__name__}: {error}"
        _prepare_matplotlib()
    main = sys.modules["__main__"].__dict__
    for alias, name in definition["aliases"].items():
        if name in sys.modules and name not in failed:
            main[alias] = sys.modules[name]
    for generation in range(3):
        gc.collect(generation)
    return json.dumps(failed)


def _prepare_matplotlib():
    if "matplotlib" not in sys.modules:
        return
    import matplotlib

    matplotlib.use("agg")
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return

    def show(*_args, **_kwargs):
        """Send every open figure as a PNG and close it."""
        display.flush_figures()

    pyplot.show = show
    # The first figure loads fonts and tables that every later one would otherwise wait for.
    figure = pyplot.figure()
    figure.add_subplot().plot([0, 1])
    display.figure_png(figure)
    pyplot.close("all")
