"""`pyodide.http` without JavaScript: the server makes the requests, as for Python's own libraries."""

import io
import json


def adapt(module):
    def open_url(url):
        """Fetch a URL. Returns its text, as a file."""
        from urllib.request import urlopen

        with urlopen(url) as response:
            return io.StringIO(response.read().decode(response.headers.get_content_charset() or "utf-8"))

    async def pyfetch(request, /, *, method="GET", headers=None, body=None, **_options):
        """Fetch a URL. Of the options those named here have an effect."""
        from . import network

        pairs = [(str(name), str(value)) for name, value in dict(headers or {}).items()]
        if isinstance(body, str):
            body = body.encode()
        identifier = network.start(method.upper(), str(request), pairs, bytes(body or b""))
        head = await network.wait_async(identifier)
        return FetchResponse(str(request), head, network.Body(identifier), module)

    module.open_url = open_url
    module.pyfetch = pyfetch
    module.FetchResponse = FetchResponse
    module._pyfetch.pyfetch = pyfetch


class FetchResponse:
    """What `pyfetch` returns; as Pyodide's, without what is JavaScript's."""

    def __init__(self, url, head, body, module):
        self.url = url
        self.status = head["status"]
        self.status_text = head["reason"]
        self.headers = {name.lower(): value for name, value in head["headers"]}
        self.ok = 200 <= self.status < 300
        self._body = body
        self._module = module
        self.body_used = False

    @property
    def redirected(self):
        return False

    def raise_for_status(self):
        if self.status >= 400:
            raise self._module.HttpStatusError(self.status, self.status_text, self.url)

    async def bytes(self):
        if self.body_used:
            raise self._module.BodyUsedError()
        self.body_used = True
        pieces = []
        while piece := self._body.read_piece():
            pieces.append(piece)
        return b"".join(pieces)

    async def memoryview(self):
        return memoryview(await self.bytes())

    async def text(self):
        return (await self.bytes()).decode("utf-8", "replace")

    string = text

    async def json(self, **options):
        return json.loads(await self.bytes(), **options)
