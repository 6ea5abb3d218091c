"""`IPython.display` and what else notebooks import of IPython: classes that say how they are shown, and `display` itself.

A stand-in: what it shows goes out as this sandbox's `outputs`. `imports.py` gives it IPython's names.
"""

import base64
import html
import os
import struct

from .display import DisplayHandle, clear_output, display, update_display
from .interactive_shell import InteractiveShell, UsageError, get_ipython

__all__ = [
    *("Audio", "Code", "DisplayHandle", "DisplayObject", "FileLink", "FileLinks", "GeoJSON", "HTML", "IFrame", "Image", "InteractiveShell"),
    *("JSON", "Javascript", "Latex", "Markdown", "Math", "Pretty", "ProgressBar", "SVG", "ScribdDocument", "TextDisplayObject"),
    *("UsageError", "Video", "VimeoVideo", "YouTubeVideo", "clear_output", "display", "display_html", "display_javascript", "display_jpeg"),
    *("display_json", "display_latex", "display_markdown", "display_pdf", "display_png", "display_pretty", "display_svg", "display_webp"),
    *("get_ipython", "publish_display_data", "set_matplotlib_close", "set_matplotlib_formats", "update_display", "version_info"),
]
# Above 8.24 matplotlib leaves it alone.
version_info = (9, 0, 0, "")


class DisplayObject:
    """Data with a way to be shown: given as it is, or by the name of a file, or by a URL that the server may fetch."""

    __module__ = "IPython.core.display"
    _is_text = True

    def __init__(self, data=None, url=None, filename=None, metadata=None):
        if isinstance(data, os.PathLike):
            data = os.fspath(data)
        if isinstance(data, str) and url is None and filename is None:
            if data.startswith(("http://", "https://")):
                data, url = None, data
            elif len(data) < 1000 and "\n" not in data and os.path.isfile(data):
                data, filename = None, data
        self.data = data
        self.url = url
        self.filename = None if filename is None else os.fspath(filename)
        self.metadata = metadata or {}
        self.reload()

    def reload(self):
        """Read the file, or fetch the URL, again."""
        if self.filename is not None:
            with open(self.filename, "rb") as file:
                self.data = file.read()
        elif self.url is not None and self.data is None:
            from urllib.request import urlopen

            with urlopen(self.url) as response:
                self.data = response.read()
        if self._is_text and isinstance(self.data, bytes):
            self.data = self.data.decode()

    def _shown(self):
        """The data, with its metadata where it has some."""
        return (self.data, dict(self.metadata)) if self.metadata else self.data

    def __repr__(self):
        return f"<{self.__module__}.{type(self).__name__} object>"


class TextDisplayObject(DisplayObject):
    __module__ = "IPython.core.display"

    def reload(self):
        super().reload()
        if self.data is not None and not isinstance(self.data, str):
            raise TypeError(f"{type(self).__name__} expects text, not {self.data!r}")


class Pretty(TextDisplayObject):
    __module__ = "IPython.core.display"

    def __repr__(self):
        return str(self.data)


class HTML(TextDisplayObject):
    __module__ = "IPython.core.display"

    def _repr_html_(self):
        return self._shown()

    def __html__(self):
        return self.data


class Markdown(TextDisplayObject):
    __module__ = "IPython.core.display"

    def _repr_markdown_(self):
        return self._shown()


class Latex(TextDisplayObject):
    __module__ = "IPython.core.display"

    def _repr_latex_(self):
        return self._shown()


class Math(TextDisplayObject):
    __module__ = "IPython.core.display"

    def _repr_latex_(self):
        text = f"$\\displaystyle {self.data.strip('$')}$"
        return (text, dict(self.metadata)) if self.metadata else text


class SVG(DisplayObject):
    __module__ = "IPython.core.display"

    def reload(self):
        """Of a document no more than the picture."""
        super().reload()
        from xml.dom import minidom
        from xml.parsers.expat import ExpatError

        if self.data is None:
            return
        try:
            found = minidom.parseString(self.data).getElementsByTagName("svg")
        except ExpatError:  # a browser may take it all the same
            return
        self.data = found[0].toxml() if found else self.data

    def _repr_svg_(self):
        return self._shown()


class JSON(DisplayObject):
    __module__ = "IPython.core.display"

    def __init__(self, data=None, url=None, filename=None, expanded=False, metadata=None, root="root", **options):
        super().__init__(data, url, filename, {"expanded": expanded, "root": root, **(metadata or {}), **options})

    def reload(self):
        super().reload()
        if isinstance(self.data, str):
            import json

            self.data = json.loads(self.data)
        if self.data is not None and not isinstance(self.data, (dict, list)):
            raise TypeError(f"{type(self).__name__} expects JSONable dict or list, not {self.data!r}")

    def _repr_json_(self):
        return self._shown()


class GeoJSON(JSON):
    __module__ = "IPython.core.display"

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"application/geo+json": self.data}, {"application/geo+json": dict(self.metadata)}

    def _repr_json_(self):
        return None


class Javascript(TextDisplayObject):
    __module__ = "IPython.core.display"

    def __init__(self, data=None, url=None, filename=None, lib=None, css=None):
        self.lib = [lib] if isinstance(lib, str) else list(lib or ())
        self.css = [css] if isinstance(css, str) else list(css or ())
        super().__init__(data, url, filename)

    def _repr_javascript_(self):
        """After its style sheets were added, and when its libraries were loaded one after another."""
        styles = "".join(
            f'var link = document.createElement("link");\nlink.rel = "stylesheet";\nlink.type = "text/css";\n'
            f'link.href = "{address}";\ndocument.head.appendChild(link);\n'
            for address in self.css
        )
        libraries = "".join(
            'new Promise(function(resolve, reject) {\nvar script = document.createElement("script");\nscript.onload = resolve;\n'
            f'script.onerror = reject;\nscript.src = "{address}";\ndocument.head.appendChild(script);\n}}).then(() => {{\n'
            for address in self.lib
        )
        return styles + libraries + self.data + "\n});" * len(self.lib)


class Code(TextDisplayObject):
    __module__ = "IPython.lib.display"

    def __init__(self, data=None, url=None, filename=None, language=None):
        super().__init__(data, url, filename)
        self.language = language

    def _repr_html_(self):
        return f"<pre><code>{html.escape(self.data)}</code></pre>"

    def __repr__(self):
        return self.data


_SIGNATURES = {b"\x89PNG": "png", b"\xff\xd8": "jpeg", b"GIF8": "gif", b"RIFF": "webp", b"BM": "bmp", b"<svg": "svg+xml"}


class Image(DisplayObject):
    __module__ = "IPython.core.display"
    _is_text = False

    def __init__(self, data=None, url=None, filename=None, format=None, embed=None, width=None, height=None, **options):
        given = options.get("metadata") or {}
        self.width, self.height, self.alt = width or given.get("width"), height or given.get("height"), options.get("alt") or given.get("alt")
        self.retina, self.unconfined = options.get("retina", False), options.get("unconfined", False)
        self.embed = embed if embed is not None else True
        self._given = format
        address = url or (data if isinstance(data, str) and data.startswith(("http://", "https://")) else None)
        if address is not None and not embed:
            # The client fetches it.
            self.embed = False
            self.data, self.url, self.filename, self.metadata = None, address, None, given
        else:
            super().__init__(data, url, filename, given)
            if isinstance(self.data, str):
                raise FileNotFoundError(f"No such file or directory: {self.data!r}")
            if self.data is None:
                raise ValueError("No image data found. Expecting filename, url, or data.")
            if self.retina and (size := _pixels(self.data)) is not None:
                self.width, self.height = size[0] // 2, size[1] // 2

    @property
    def format(self):
        given = (self._given or "").lower().replace("jpg", "jpeg")
        return given or next((kind for start, kind in _SIGNATURES.items() if self.data.startswith(start)), "png")

    def _repr_mimebundle_(self, include=None, exclude=None):
        about = (("width", self.width), ("height", self.height), ("alt", self.alt), ("unconfined", self.unconfined))
        if not self.embed:
            names = {"class": "unconfined"} if self.unconfined else {}
            names = {**dict(about[:2]), **names, "alt": self.alt}
            size = "".join(f' {name}="{html.escape(str(value))}"' for name, value in names.items() if value)
            return {"text/html": f'<img src="{html.escape(self.url)}"{size}/>'}
        kind = f"image/{self.format}"
        data = self.data.decode() if kind == "image/svg+xml" else base64.b64encode(self.data).decode()
        metadata = {**self.metadata, **{name: value for name, value in about if value}}
        return {kind: data}, {kind: metadata} if metadata else {}


def _pixels(data):
    """Width and height of a PNG or a GIF; None: it is neither."""
    if data.startswith(b"\x89PNG") and len(data) >= 24:
        return struct.unpack(">II", data[16:24])
    if data.startswith(b"GIF8") and len(data) >= 10:
        return struct.unpack("<HH", data[6:10])
    return None


class Audio(DisplayObject):
    __module__ = "IPython.lib.display"
    _is_text = False

    def __init__(self, data=None, filename=None, url=None, embed=None, rate=None, autoplay=False, normalize=True, **_options):
        if data is None and filename is None and url is None:
            raise ValueError("No audio data found. Expecting filename, url, or data.")
        if embed is False and url is None:
            raise ValueError("No url found. Expecting url when embed=False")
        self.autoplay = autoplay
        self.mimetype = "audio/wav"
        if url is not None and not embed:
            # The client fetches it.
            self.data, self.url, self.filename, self.metadata = None, url, None, {}
            self._guess_type(url)
            return
        if data is not None and not isinstance(data, (bytes, str, os.PathLike)):
            if rate is None:
                raise ValueError("rate must be specified when data is a numpy array or list of audio samples.")
            data = _wave(data, rate, normalize)
        super().__init__(data, url, filename)
        self._guess_type(self.filename or self.url or "")

    def _guess_type(self, name):
        import mimetypes

        self.mimetype = mimetypes.guess_type(name)[0] or self.mimetype

    def _repr_html_(self):
        embedded = None if self.data is None else base64.b64encode(self.data).decode()
        source = html.escape(self.url) if embedded is None else f"data:{self.mimetype};base64,{embedded}"
        return f'<audio controls{" autoplay" if self.autoplay else ""}><source src="{source}" type="{self.mimetype}"></audio>'


def _wave(samples, rate, normalize):
    channels = [list(channel) for channel in samples] if hasattr(samples[0], "__len__") else [list(samples)]
    loudest = max((abs(float(value)) for channel in channels for value in channel), default=0) if normalize else 1
    if loudest > 1 and not normalize:
        raise ValueError("Audio data must be between -1 and 1 when normalize=False.")
    scale = 32767 / (loudest or 1)
    values = [int(float(value) * scale) for frame in zip(*channels) for value in frame]
    data = struct.pack(f"<{len(values)}h", *values)
    count = len(channels)
    head = struct.pack("<4sI8sIHHIIHH4sI", b"RIFF", 36 + len(data), b"WAVEfmt ", 16, 1, count, rate, rate * count * 2, count * 2, 16, b"data", len(data))
    return head + data


class Video(DisplayObject):
    __module__ = "IPython.core.display"
    _is_text = False

    def __init__(self, data=None, url=None, filename=None, embed=False, mimetype=None, width=None, height=None, html_attributes="controls"):
        import mimetypes

        name = url or filename or (data if isinstance(data, (str, os.PathLike)) else "")
        self.mimetype = mimetype or mimetypes.guess_type(os.fspath(name))[0] or "video/mp4"
        self.width, self.height, self.html_attributes = width, height, html_attributes
        if isinstance(name, str) and name.startswith(("http://", "https://")) and not embed:
            self.data, self.url, self.filename, self.metadata = None, name, None, {}
        else:
            super().__init__(data, url, filename)

    def _repr_html_(self):
        source = html.escape(self.url) if self.data is None else f"data:{self.mimetype};base64,{base64.b64encode(self.data).decode()}"
        size = "".join(f' {name}="{value}"' for name, value in (("width", self.width), ("height", self.height)) if value)
        return f'<video {self.html_attributes}{size}><source src="{source}" type="{self.mimetype}"></video>'


class IFrame:
    __module__ = "IPython.lib.display"

    def __init__(self, src, width, height, extras=None, **params):
        from urllib.parse import urlencode

        self.src = f"{src}?{urlencode(params)}" if params else src
        self.width, self.height = width, height

    def _repr_html_(self):
        return f'<iframe width="{self.width}" height="{self.height}" src="{html.escape(self.src)}" frameborder="0" allowfullscreen></iframe>'

    def __repr__(self):
        return f"<IPython.lib.display.{type(self).__name__} object>"


class YouTubeVideo(IFrame):
    __module__ = "IPython.lib.display"

    def __init__(self, id, width=400, height=300, **options):
        self.id = id
        super().__init__(f"https://www.youtube.com/embed/{id}", width, height, **options)


class VimeoVideo(IFrame):
    __module__ = "IPython.lib.display"

    def __init__(self, id, width=400, height=300, **options):
        super().__init__(f"https://player.vimeo.com/video/{id}", width, height, **options)


class ScribdDocument(IFrame):
    __module__ = "IPython.lib.display"

    def __init__(self, id, width=400, height=300, **options):
        super().__init__(f"https://www.scribd.com/embeds/{id}/content", width, height, **options)


class FileLink:
    __module__ = "IPython.lib.display"

    def __init__(self, path, url_prefix="", result_html_prefix="", result_html_suffix="<br>"):
        self.path = os.fspath(path)
        self._prefix = url_prefix

    def _repr_html_(self):
        if not os.path.exists(self.path):
            return f"Path (<tt>{html.escape(self.path)}</tt>) does not exist."
        return f'<a href="{html.escape(self._prefix + self.path)}" target="_blank">{html.escape(self.path)}</a><br>'

    def __repr__(self):
        return os.path.abspath(self.path)


class FileLinks(FileLink):
    __module__ = "IPython.lib.display"

    def _repr_html_(self):
        names = (os.path.join(folder, name) for folder, _, names in os.walk(self.path) for name in sorted(names))
        return "".join(FileLink(name, self._prefix)._repr_html_() for name in names)


class ProgressBar(DisplayObject):
    """Shown once, and updated in its place."""

    __module__ = "IPython.core.display"

    def __init__(self, total):
        self.total = total
        self._progress = 0
        self._display_id = os.urandom(8).hex()

    def _repr_html_(self):
        return f"<progress style='width:60ex' max='{self.total}' value='{self.progress}'></progress>"

    def __repr__(self):
        filled = "=" * int(self.progress / self.total * 60) if self.total else ""
        return f"[{filled:<60}] {self.progress}/{self.total}"

    @property
    def progress(self):
        return self._progress

    @progress.setter
    def progress(self, value):
        self._progress = value
        self.update()

    def display(self):
        display(self, display_id=self._display_id)

    def update(self):
        update_display(self, display_id=self._display_id)

    def __iter__(self):
        self.display()
        self._progress = -1
        return self

    def __next__(self):
        self.progress += 1
        if self.progress < self.total:
            return self.progress
        raise StopIteration


def publish_display_data(data, metadata=None, *, transient=None, update=False, **_options):
    display(data, raw=True, metadata=metadata, transient=transient, update=update)


def set_matplotlib_formats(*_formats, **_options):
    """Nothing: figures are PNGs."""


def set_matplotlib_close(close=True):
    """Nothing: figures are closed once they were shown."""


def _displaying(mime):
    def show(*values, raw=False, metadata=None, **_options):
        values = [{mime: value} for value in values] if raw else values
        display(*values, raw=raw, include=(mime,), metadata=metadata and {mime: metadata})

    return show


display_pretty = _displaying("text/plain")
display_html = _displaying("text/html")
display_markdown = _displaying("text/markdown")
display_svg = _displaying("image/svg+xml")
display_png = _displaying("image/png")
display_jpeg = _displaying("image/jpeg")
display_webp = _displaying("image/webp")
display_pdf = _displaying("application/pdf")
display_latex = _displaying("text/latex")
display_json = _displaying("application/json")
display_javascript = _displaying("application/javascript")
