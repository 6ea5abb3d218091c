"""Stands in for the module of httpx that holds its default transports."""

import contextlib

from httpx._exceptions import ConnectError, ConnectTimeout, ReadError, ReadTimeout, UnsupportedProtocol
from httpx._models import Response
from httpx._transports.base import AsyncBaseTransport, BaseTransport
from httpx._types import AsyncByteStream, SyncByteStream

from sandbox_runner import network

__all__ = [
    "AsyncHTTPTransport",
    "AsyncJavascriptFetchTransport",
    "HTTPTransport",
    "JavascriptFetchTransport",
]


class HTTPTransport(BaseTransport):
    def __init__(
        self,
        verify=True,
        cert=None,
        trust_env=True,
        http1=True,
        http2=False,
        limits=None,
        proxy=None,
        uds=None,
        local_address=None,
        retries=0,
        socket_options=None,
    ):
        """The parameters have no effect: connections, certificates and proxies are the server's business."""

    def handle_request(self, request):
        with _httpx_errors(request):
            started = _start(request, b"".join(request.stream))
            head = network.wait(started)
        return _response(head, _Stream(started, request))


class AsyncHTTPTransport(AsyncBaseTransport):
    __init__ = HTTPTransport.__init__

    async def handle_async_request(self, request):
        body = b"".join([piece async for piece in request.stream])
        with _httpx_errors(request):
            started = _start(request, body)
            head = await network.wait_async(started)
        return _response(head, _AsyncStream(started, request))


JavascriptFetchTransport = HTTPTransport
AsyncJavascriptFetchTransport = AsyncHTTPTransport


class _Stream(SyncByteStream):
    def __init__(self, started, request):
        self._body = network.Body(started, _timeout(request))
        self._request = request

    def __iter__(self):
        while piece := self._read():
            yield piece

    def _read(self):
        with _httpx_errors(self._request, reading=True):
            return self._body.read_piece()

    def close(self):
        self._body.close()


class _AsyncStream(_Stream, AsyncByteStream):
    async def __aiter__(self):
        while piece := self._read():
            yield piece

    async def aclose(self):
        self.close()


def _start(request, body):
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
    return network.start(request.method, str(request.url), headers, body, _timeout(request))


def _timeout(request):
    return request.extensions.get("timeout", {}).get("read")


def _response(head, stream):
    return Response(
        status_code=head["status"],
        headers=[(name.encode("latin-1"), value.encode("latin-1")) for name, value in head["headers"]],
        stream=stream,
        extensions={"http_version": b"HTTP/1.1", "reason_phrase": head["reason"].encode("latin-1", "replace")},
    )


@contextlib.contextmanager
def _httpx_errors(request, reading=False):
    if request.url.scheme not in ("http", "https"):
        raise UnsupportedProtocol(f"Request URL has an unsupported protocol '{request.url.scheme}://'.")
    try:
        yield
    except TimeoutError as error:
        late = ConnectTimeout if getattr(error, "kind", "") == "connect-timeout" else ReadTimeout
        raise late(str(error), request=request) from error
    except ConnectionError as error:
        broken = ReadError if reading or getattr(error, "kind", "") == "protocol" else ConnectError
        raise broken(str(error), request=request) from error
