"""`display()` as in a notebook, figures, and the value of the last expression: MIME bundles that go out while the code runs.

Chosen as IPython chooses: `_ipython_display_`, then `_repr_mimebundle_`, then the `_repr_*_` of every format, and `repr` as text.
"""

import base64
import contextlib
import os
import sys

from . import charts, convert, device, figures, tables

_METHODS = (
    ("text/html", "_repr_html_"),
    ("text/markdown", "_repr_markdown_"),
    ("image/svg+xml", "_repr_svg_"),
    ("image/png", "_repr_png_"),
    ("application/pdf", "_repr_pdf_"),
    ("image/jpeg", "_repr_jpeg_"),
    ("text/latex", "_repr_latex_"),
    ("application/json", "_repr_json_"),
    ("application/javascript", "_repr_javascript_"),
)
_MAX_BYTES = 10 * 1024 * 1024
"""Of what is shown at a time, and of the last expression's value. The host ends a sandbox that shows more."""
_MAX_SENT_BYTES = 48 * 1024 * 1024
"""With what was replaced or cleared since. The host takes 64 MiB of JSON."""
_MAX_TEXT = 1024 * 1024
"""Characters of `text/plain` in a bundle that is too large."""
_MAX_ID = 256
_MAX_METADATA_BYTES = 16 * 1024
_MAX_METADATA_DEPTH = 12
"""Both as the host takes them, or looser than it does."""
mode = None
"""`DisplayMode` of messages.ts: how the last expression's value is sent as a bundle; None: it is not."""
is_cut = False
"""Whether something was left out for its size."""
_shown_bytes = 0
_sent_bytes = 0
_sizes = {}
"""Of what can be updated: display id → bytes, in how many places."""
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
    """What `_repr_pretty_`, and functions for plain text, write to, which IPython hands them. Lines are as long as they come."""

    def __init__(self):
        self.output = ""
        self.indentation = 0

    def text(self, text):
        self.output += text

    def breakable(self, separator=" "):
        self.output += separator

    def break_(self):
        self.output += "\n" + " " * self.indentation

    def pretty(self, value):
        self.output += _as_plain_text(value)

    def begin_group(self, indent=0, open=""):
        self.output += open
        self.indentation += indent

    def end_group(self, dedent=0, close=""):
        self.indentation -= dedent
        self.output += close

    @contextlib.contextmanager
    def group(self, indent=0, open="", close=""):
        self.begin_group(indent, open)
        try:
            yield
        finally:
            self.end_group(indent, close)

    @contextlib.contextmanager
    def indent(self, indent):
        self.indentation += indent
        try:
            yield
        finally:
            self.indentation -= indent


formatters = {mime: _Formatter() for mime in ("text/plain", *(mime for mime, _ in _METHODS))}


def display(
    *values, include=None, exclude=None, metadata=None, transient=None, display_id=None, raw=False, clear=False, **options
):
    """Show values as a notebook would: each in all of its representations, and plain text.

    `include` and `exclude` name MIME types; `raw`: the values are MIME bundles themselves; `metadata`: `{MIME type: {…}}`. With
    `display_id` (True: a new one) the return value has `update`, which shows another value in the place of this one.
    """
    if display_id is None and isinstance(transient, dict):
        display_id = transient.get("display_id")
    if display_id is True:
        display_id = _new_id()
    is_update = bool(options.get("update"))
    if is_update and display_id is None:
        raise TypeError("display_id required for update_display")
    if display_id is not None:
        display_id = _checked_id(display_id)
        if not values:
            # A place for what comes later.
            values, raw = ({},), True
    if clear:
        clear_output(wait=True)
    for value in values:
        if raw:
            if not isinstance(value, dict):
                raise TypeError(f"a MIME bundle is a dict, not {convert.class_name(value)}")
            bundle, known = _texts(value), {}
        else:
            shown = _format(value, include, exclude)
            if shown is None:
                continue
            bundle, known = shown
            if not bundle:  # of what is wanted it has nothing
                continue
        if metadata:
            known = _merged(known, metadata)
        send(bundle, known, display_id, is_update)
    return None if display_id is None else DisplayHandle(display_id)


def update_display(value, *, display_id, **options):
    """Show a value in the place of what was displayed with this `display_id`."""
    display(value, display_id=display_id, **{**options, "update": True})


class DisplayHandle:
    """What `display(…, display_id=…)` returns."""

    def __init__(self, display_id=None):
        self.display_id = _new_id() if display_id is None else _checked_id(display_id)

    def __repr__(self):
        return f"<{type(self).__name__} display_id={self.display_id}>"

    def display(self, value, **options):
        display(value, display_id=self.display_id, **options)

    def update(self, value, **options):
        update_display(value, display_id=self.display_id, **options)


def clear_output(wait=False):
    """Take back what was displayed so far; `wait`: when something else comes."""
    global _shown_bytes, _sent_bytes, is_cut
    if _sink is not None:
        return
    _shown_bytes = 0
    _sizes.clear()
    _sent_bytes += 1024
    try:
        device.tell("clear-output", bool(wait))
    except OSError:
        is_cut = True


@contextlib.contextmanager
def captured(bundles):
    """Have what is shown meanwhile appended to a list instead."""
    global _sink
    before, _sink = _sink, bundles
    try:
        yield
    finally:
        _sink = before


def reset(new_mode=None):
    """Called when an execution begins."""
    global _sent_bytes, _shown_bytes, _sink, mode, is_cut
    _sent_bytes = 0
    _shown_bytes = 0
    _sink = None
    mode = new_mode
    is_cut = False
    if _sizes:
        _sizes.clear()


def _format(value, include=None, exclude=None):
    """Returns a bundle of texts and its metadata; None: the value has shown itself."""
    if not convert.answers_to_every_name(value) and _shows_itself(value):
        return None
    data, metadata = _representations(value, include, exclude)

    def is_wanted(mime):
        return (include is None or mime in include) and (exclude is None or mime not in exclude)

    bundle = _texts({mime: part for mime, part in data.items() if is_wanted(mime)})
    return bundle, {mime: part for mime, part in metadata.items() if mime in bundle}


def _representations(value, include=None, exclude=None):
    if convert.answers_to_every_name(value):
        return {"text/plain": convert.describe(value, repr)}, {}
    bundle, metadata = {}, {}
    custom = _with_metadata(_call_with_choice(value, "_repr_mimebundle_", include, exclude))
    if isinstance(custom[0], dict):
        bundle.update(custom[0])
        if isinstance(custom[1], dict):
            metadata.update(custom[1])
    for mime, method in _METHODS:
        function = formatters[mime].function_for(value)
        if mime in bundle and function is None:
            continue
        data, about = _with_metadata(_call(value, method) if function is None else _result_of(function, value))
        if data is not None:
            bundle[mime] = data
            if about is not None:
                metadata[mime] = about
    if "text/plain" not in bundle or formatters["text/plain"].function_for(value) is not None:
        bundle["text/plain"] = _as_plain_text(value)
    figure = _figure_class()
    if figure is not None and isinstance(value, figure):
        bundle.update(_figure_data(value))
    if mode is not None and tables.is_table(value):
        bundle = {**tables.data_of(value), **bundle}
    return bundle, metadata


def _with_metadata(data):
    """What a representation may return: data, or data with what is to be known about it."""
    return data if isinstance(data, tuple) and len(data) == 2 else (data, None)


def _as_plain_text(value):
    function = formatters["text/plain"].function_for(value) or _own_printer(value)
    if function is not None:
        printer = _Printer()
        _result_of(function, value, printer, False)
        if printer.output:
            return printer.output
    return convert.describe(value, repr)


def _own_printer(value):
    """The `_repr_pretty_` of a class, unless one that is derived from it has a `__repr__`."""
    for kind in type.__dict__["__mro__"].__get__(type(value)):
        members = type.__dict__["__dict__"].__get__(kind)
        if callable(members.get("_repr_pretty_")):
            return members["_repr_pretty_"]
        if "__repr__" in members:
            return None
    return None


def _shows_itself(value):
    if isinstance(value, type):
        return False
    method = convert.getattr_safely(value, "_ipython_display_")
    if not callable(method):
        return False
    try:
        method()
    except Exception:
        return False
    return True


def _texts(bundle):
    return {str(mime): _as_text(str(mime), data) for mime, data in bundle.items()}


def send(bundle, metadata=None, display_id=None, is_update=False):
    """Send a bundle, unless more than 10 MiB are shown already. Returns whether it was sent."""
    global _shown_bytes, is_cut
    if _sink is not None:
        _sink.append(bundle)
        return True
    size = _size(bundle)
    before, places = _sizes.get(display_id, (0, 0))
    # An update stands in the place of each: all of them are sent in a reply.
    after, places = (size * (places or 1), places or 1) if is_update else (before + size, places + 1)
    shown = _shown_bytes + after - before
    if shown > _MAX_BYTES or not _tell(size, bundle, metadata, display_id, "update" if is_update else None):
        is_cut = True
        return False
    _shown_bytes = shown
    if display_id is not None:
        _sizes[display_id] = after, places
    return True


def _tell(size, bundle, metadata, display_id, kind):
    global _sent_bytes
    if _sent_bytes + size > _MAX_SENT_BYTES:
        return False
    message = {"bundle": bundle}
    if kind is not None:
        message["kind"] = kind
    if display_id is not None:
        message["id"] = display_id
    if metadata and (about := _checked_metadata(metadata)):
        message["metadata"] = about
    try:
        device.tell("display", message)
    except OSError:  # the host's own limit
        return False
    _sent_bytes += size
    return True


def _size(bundle):
    return 1024 + sum(len(data.encode("utf-8", "surrogatepass")) for data in bundle.values())


def send_value(value):
    """Send the last expression's value as a bundle; of None there is none."""
    if value is None:
        return
    shown = _format(value)
    if shown is not None:
        _send_value_bundle(*shown)


def _send_value_bundle(bundle, metadata=None):
    global is_cut
    if _size(bundle) > _MAX_BYTES:
        is_cut = True
        text = bundle.get("text/plain", "")
        if len(text) > _MAX_TEXT:
            bundle["text/plain"] = text[:_MAX_TEXT] + "…"
        while _size(bundle) > _MAX_BYTES:
            del bundle[max(bundle, key=lambda mime: len(bundle[mime]))]
    if not _tell(_size(bundle), bundle, metadata, None, "value"):
        is_cut = True


def show_what_is_left(value):
    """The end of code: show the last expression's value, where that is asked for, and the figures that are open.

    Where the value is one of them, it is shown once.
    """
    if mode is None:
        flush_figures()
    elif not _is_open_figure(value):
        send_value(value)
        flush_figures()
    elif mode == "on":
        send_value(value)
        sys.modules["matplotlib.pyplot"].close(value)
        flush_figures()
    else:
        flush_figures()
        _send_value_bundle({"text/plain": _as_plain_text(value)})


def may_have_figures():
    return "matplotlib.pyplot" in sys.modules


def _figure_class():
    return getattr(sys.modules.get("matplotlib.figure"), "Figure", None)


def _is_open_figure(value):
    pyplot, figure = sys.modules.get("matplotlib.pyplot"), _figure_class()
    if pyplot is None or figure is None or not isinstance(value, figure):
        return False
    number = getattr(value, "number", None)
    return number in pyplot.get_fignums() and pyplot.figure(number) is value


def _figure_data(figure):
    """Its picture; and what it shows as data, for who asks for values as bundles: that takes time."""
    data = {"image/png": figures.to_png(figure)}
    if mode is not None and (chart := charts.chart_of(figure)) is not None:
        data[charts.MIME] = chart
    return data


def flush_figures():
    """Send every open matplotlib figure as a PNG, then close it: what `plt.show()` does, and the end of an execution."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None:
        return
    try:
        for number in pyplot.get_fignums():
            figure = pyplot.figure(number)
            send(_texts({**_figure_data(figure), "text/plain": repr(figure)}))
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


def is_json(mime):
    return mime.split(";")[0].strip().lower().endswith(("/json", "+json"))


def _as_text(mime, data):
    """Bytes in base64, a text as it is, anything else as JSON; of a JSON type always JSON."""
    import json

    if isinstance(data, (bytes, bytearray, memoryview)):
        return base64.b64encode(data).decode()
    if isinstance(data, str):
        text = str.__str__(data)
        if not is_json(mime):
            return text
        try:
            json.loads(text)
        except ValueError:
            return json.dumps(text)
        return text
    return json.dumps(convert.to_json_data(data)[0])


def _new_id():
    return os.urandom(16).hex()


def _checked_id(display_id):
    text = display_id if isinstance(display_id, str) else str(display_id)
    if len(text) > _MAX_ID:
        raise ValueError(f"a display_id has at most {_MAX_ID} characters")
    return text


def _merged(data, more):
    if not isinstance(data, dict) or not isinstance(more, dict):
        return more
    return {**data, **{name: _merged(data.get(name), part) for name, part in more.items()}}


def _checked_metadata(metadata):
    """What of it is JSON, and small; what is about large data has no large facts."""
    import json

    data = convert.to_json_data(metadata)[0]
    if not isinstance(data, dict) or _depth(data) > _MAX_METADATA_DEPTH:
        return None
    return data if len(json.dumps(data)) <= _MAX_METADATA_BYTES else None


def _depth(value):
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner)) if inner else 0


def _call(value, name):
    if isinstance(value, type):
        return None
    method = convert.getattr_safely(value, name)
    if not callable(method):
        return None
    return _result_of(method)


def _call_with_choice(value, name, include, exclude):
    """As IPython calls it, with what is wanted; or without, where the method takes no such thing."""
    if isinstance(value, type):
        return None
    method = convert.getattr_safely(value, name)
    if not callable(method):
        return None
    try:
        return method(include=include, exclude=exclude)
    except TypeError:
        return _result_of(method)
    except Exception:
        return None


def _result_of(function, *values):
    try:
        return function(*values)
    except Exception:
        return None
