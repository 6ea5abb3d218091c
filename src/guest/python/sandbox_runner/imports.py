"""Modules that are imported otherwise than elsewhere: adapted once they are loaded, or replaced by a file of ours.

What is imported already when the memory image is taken is adapted then; all else costs nothing until code imports it.
"""

import importlib
import sys
from importlib.util import spec_from_file_location

_STAND_INS = {
    # What urllib3 itself asks for on this platform.
    "urllib3.contrib.emscripten": "for_urllib3.py",
    "httpx._transports.default": "for_httpx.py",
    # Pyodide's build of httpx has this one instead.
    "httpx._transports.jsfetch": "for_httpx.py",
    **dict.fromkeys(
        (
            *("IPython", "IPython.core", "IPython.lib", "IPython.display", "IPython.core.display", "IPython.lib.display"),
            *("IPython.core.display_functions", "IPython.core.getipython", "IPython.core.interactiveshell", "IPython.core.error"),
        ),
        "ipython_names.py",
    ),
}
_PACKAGES = {"IPython", "IPython.core", "IPython.lib"}
_ADAPTERS = {
    "PIL.Image": ("saved_images", "adapt"),
    "concurrent.futures._base": ("one_after_another", "adapt_futures"),
    "concurrent.futures.process": ("one_after_another", "adapt_process_pool"),
    "concurrent.futures.thread": ("one_after_another", "adapt_thread_pool"),
    "getpass": ("tool_calls", "adapt_getpass"),
    "http.client": ("network", "adapt_http_client"),
    "multiprocessing.context": ("one_after_another", "adapt_processes"),
    "multiprocessing.pool": ("one_after_another", "adapt_pool"),
    "pdb": ("refusals", "adapt_debugger"),
    "pyodide.http": ("for_pyodide_http", "adapt"),
    "subprocess": ("refusals", "adapt_subprocess"),
    "tqdm.std": ("refusals", "adapt_tqdm"),
    "webbrowser": ("refusals", "adapt_webbrowser"),
    "zoneinfo._common": ("time_zones", "adapt"),
    "zoneinfo._tzpath": ("time_zones", "adapt_list"),
}


def install():
    """Called once, before the memory image is taken."""
    sys.meta_path.insert(0, _Finder())
    for name in _ADAPTERS:
        if name in sys.modules:
            _adapt(name, sys.modules[name])


def _adapt(name, module):
    ours, function = _ADAPTERS[name]
    getattr(importlib.import_module(f"{__package__}.{ours}"), function)(module)


class _Finder:
    def find_spec(self, name, path=None, target=None):
        if name in _STAND_INS:
            file = f"{__file__.rpartition('/')[0]}/{_STAND_INS[name]}"
            return spec_from_file_location(name, file, submodule_search_locations=[] if name in _PACKAGES else None)
        if name not in _ADAPTERS:
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                spec.loader = _Adapted(spec.loader)
                return spec
        return None


class _Adapted:
    """A loader that lets another one do the work."""

    def __init__(self, loader):
        self._loader = loader

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        module.__loader__ = module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _adapt(module.__name__, module)
