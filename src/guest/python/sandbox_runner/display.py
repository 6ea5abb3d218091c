"""`display()` as in a notebook, and figures: MIME bundles that go out while the code runs."""

import base64
import contextlib
import sys

from . import convert, device, figures

_METHODS = (
    ("text/html", "_repr_html_"),
    ("text/markdown", "_repr_markdown_"),
    ("image/svg+xml", "_repr_svg_"),
    ("image/png", "_repr_png_"),
    ("image/jpeg", "_repr_jpeg_"),
    ("text/latex", "_repr_latex_"),
    ("application/json", "_repr_json_"),
)
_MAX_BYTES = 10 * 1024 * 1024
_sent_bytes = 0
_sink = None
"""Where bundles go instead of out; None: out."""


class _Formatter:
    """Functions for classes that do not say themselves how they are shown, as IPython's formatters have them."""

    def __init__(self):
        self.enabled = True
        self.type_printers = {}

    def for_type(self, kind, function=None):
        before = self.type_printers.get(kind)
        if function is not None:
            self.type_printers[kind] = function
        return before

    def for_type_by_name(self, module, name, function=None):
        kind = getattr(sys.modules.get(module), name, None)
        return None if kind is None else self.for_type(kind, function)

    def function_for(self, value):
        for kind in type(value).__mro__ if self.type_printers else ():
            if kind in self.type_printers:
                return self.type_printers[kind]
        return None


class _Printer:
    """What functions for plain text write to, which IPython hands them."""

    def __init__(self):
        self.output = ""

    def text(self, text):
        self.output += text

    def pretty(self, value):
        self.output += repr(value)


formatters = {mime: _Formatter() for mime in ("text/plain", *(mime for mime, _ in _METHODS))}


def display(
    *values, include=None, exclude=None, metadata=None, transient=None, display_id=None, raw=False, clear=False, **_options
):
    """Show values as a notebook would: the richest of their representations, and plain text.

    `include` and `exclude` name MIME types; `raw`: the values are MIME bundles themselves. `metadata`, `transient` and `clear`
    have no effect; with `display_id`, what it returns has `update`, which shows another value below.
    """
    for value in values:
        bundle = {str(mime): _as_text(data) for mime, data in value.items()} if raw else mime_bundle(value)
        if include is not None:
            bundle = {mime: data for mime, data in bundle.items() if mime in include}
        if exclude is not None:
            bundle = {mime: data for mime, data in bundle.items() if mime not in exclude}
        send(bundle)
    return None if display_id is None else DisplayHandle(display_id)


class DisplayHandle:
    """What `display(…, display_id=…)` returns."""

    def __init__(self, display_id=None):
        self.display_id = display_id if isinstance(display_id, str) else f"{id(self):x}"

    def display(self, value, **options):
        display(value, **options)

    def update(self, value, **options):
        display(value, **options)


@contextlib.contextmanager
def captured(bundles):
    """Have what is shown meanwhile appended to a list instead."""
    global _sink
    before, _sink = _sink, bundles
    try:
        yield
    finally:
        _sink = before


def reset():
    """Called when an execution begins."""
    global _sent_bytes, _sink
    _sent_bytes = 0
    _sink = None


def mime_bundle(value):
    if convert.answers_to_every_name(value):
        return {"text/plain": convert.describe(value, repr)}
    bundle = {}
    custom = _call(value, "_repr_mimebundle_")
    if isinstance(custom, tuple):
        custom = custom[0]
    if isinstance(custom, dict):
        bundle.update(custom)
    else:
        for mime, method in _METHODS:
            data = _call(value, method)
            if data is None and (function := formatters[mime].function_for(value)) is not None:
                data = _result_of(function, value)
            if data is not None:
                bundle[mime] = data
    if "text/plain" not in bundle and (function := formatters["text/plain"].function_for(value)) is not None:
        printer = _Printer()
        _result_of(function, value, printer, False)
        if printer.output:
            bundle["text/plain"] = printer.output
    if "text/plain" not in bundle:
        try:
            bundle["text/plain"] = repr(value)
        except Exception:
            bundle["text/plain"] = convert.describe(value)
    if "matplotlib.figure" in sys.modules and isinstance(value, sys.modules["matplotlib.figure"].Figure):
        bundle["image/png"] = figures.to_png(value)
    return {str(mime): _as_text(data) for mime, data in bundle.items()}


def send(bundle):
    """Send a bundle, unless this execution has shown more than 10 MiB already. Returns whether it was sent."""
    global _sent_bytes
    if _sink is not None:
        _sink.append(bundle)
        return True
    size = 1024 + sum(len(data.encode("utf-8", "surrogatepass")) for data in bundle.values())
    if _sent_bytes + size > _MAX_BYTES:
        return False
    _sent_bytes += size
    device.tell("display", bundle)
    return True


def may_have_figures():
    return "matplotlib.pyplot" in sys.modules


def flush_figures():
    """Send every open matplotlib figure as a PNG, then close it: what `plt.show()` does, and the end of an execution."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return
    try:
        for number in pyplot.get_fignums():
            figure = pyplot.figure(number)
            send({"image/png": _as_text(figures.to_png(figure)), "text/plain": repr(figure)})
    finally:
        # One that cannot be drawn must not fail every later execution of a session, too.
        pyplot.close("all")


def flush_figures_after(error):
    """As `flush_figures`, after code that raised `error`: what it drew is shown, as in a notebook, and hides no error."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return
    try:
        if isinstance(error, KeyboardInterrupt):  # a timeout: there is no time left to draw
            pyplot.close("all")
        else:
            flush_figures()
    except BaseException:
        pass


def _as_text(data):
    if isinstance(data, (bytes, bytearray, memoryview)):
        return base64.b64encode(data).decode()
    if isinstance(data, str):
        return data
    import json

    return json.dumps(convert.to_json_data(data)[0])


def _call(value, name):
    if isinstance(value, type):
        return None
    method = convert.getattr_safely(value, name)
    if not callable(method):
        return None
    return _result_of(method)


def _result_of(function, *values):
    try:
        return function(*values)
    except Exception:
        return None
