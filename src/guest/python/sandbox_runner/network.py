"""HTTP for user code: the server makes the requests, to hosts its operator allows, and hands over what comes back.

There are no sockets here. Python's HTTP libraries are given a transport of ours at the place where each would open one:
`http.client` (and so `urllib.request`) below, urllib3 (and so `requests`) in `for_urllib3.py`, httpx in `for_httpx.py`. None of
them is imported before user code, or an environment's image, does so. The host's end is `egress/exchange.ts`.
"""

import io
import sys
from base64 import b64encode

from . import device

_DEFAULT_PORTS = {"http": 80, "https": 443}

_unclosed = []
"""Responses that are not read any more. They are closed with the next request: the garbage collector, which finds most of them, may run
in the middle of another message to the host."""
_waiting = {}
"""Request → future, of the requests that coroutines wait for."""


def start(method, url, headers=(), body=b"", timeout=None):
    """Begin a request. `headers` are pairs of texts, `timeout` is in seconds. Returns what `wait` and `Body` take."""
    if _unclosed:
        identifiers = []
        while _unclosed:
            identifiers.append(_unclosed.pop())
        device.ask("http-close", {"ids": identifiers})
    return _ask(
        "http-start",
        {
            "method": method,
            "url": url,
            "headers": list(headers),
            "body": b64encode(body).decode(),
            "timeoutMs": _milliseconds(timeout),
        },
    )


def wait(request):
    """Block until the response begins. Returns `{"status", "reason", "headers": [[name, value], …]}`.

    Raises ConnectionError or TimeoutError, with the server's reason and its `kind` (`egress/failure.ts`).
    """
    while True:
        for answer in _ask_for_begun([request], None):
            return _head(answer)


async def wait_async(request):
    """As :func:`wait`, while other tasks go on."""
    from asyncio import get_running_loop

    future = _waiting[request] = get_running_loop().create_future()
    try:
        answer = await future
    except BaseException:
        close(request)
        raise
    finally:
        _waiting.pop(request, None)
    return _head(answer)


def close(request):
    """Say that (the rest of) a response will not be read."""
    _unclosed.append(request)


def are_awaited():
    """Whether the event loop has to wake up for a response."""
    return bool(_waiting)


def wake_waiting(timeout):
    """Wait up to `timeout` seconds (None: without limit) for a response to begin, and wake the tasks that await it."""
    wake(_ask_for_begun(list(_waiting), timeout))


def awaited():
    """The requests that the event loop has to wake up for."""
    return [*_waiting]


def wake(begun):
    """Wake the tasks that await one of the requests that have begun."""
    for answer in begun:
        future = _waiting.pop(answer["id"], None)
        if future is not None and not future.done():
            future.set_result(answer)


def _ask_for_begun(requests, timeout):
    return device.ask("http-wait", {"ids": requests, "timeoutMs": None if timeout is None else timeout * 1000})


def _ask(operation, argument):
    try:
        return device.ask(operation, argument)
    except OSError as error:
        raise ConnectionError(str(error)) from None


def _milliseconds(timeout):
    """The host takes no zero: to HTTP libraries that is a timeout as any other, and the shortest there is."""
    return None if timeout is None else max(timeout * 1000, 1)


def _head(answer):
    if "failure" in answer:
        raise _error(answer["failure"])
    return answer["head"]


def _error(failure):
    kind = failure["kind"]
    error = (TimeoutError if "timeout" in kind else ConnectionError)(failure["message"])
    error.kind = kind
    return error


class Body(io.RawIOBase):
    """A response's body as it arrives."""

    def __init__(self, request, timeout=None):
        self._request = request
        self._buffered = memoryview(b"")
        self.timeout = timeout

    def readable(self):
        return True

    def read_piece(self):
        """What has arrived, as one piece; empty: that was all."""
        if self._request is None:
            return b""
        value, piece = device.ask_for_bytes(
            "http-read", {"id": self._request, "timeoutMs": _milliseconds(self.timeout)}
        )
        if value is not None or not piece:
            # The host has forgotten it.
            self._request = None
        if value is not None:
            raise _error(value["failure"])
        return piece

    def readinto(self, target):
        if not self._buffered:
            self._buffered = memoryview(self.read_piece())
        count = min(len(target), len(self._buffered))
        target[:count] = self._buffered[:count]
        self._buffered = self._buffered[count:]
        return count

    def close(self):
        request, self._request = getattr(self, "_request", None), None
        if request is not None:
            close(request)
        super().close()


class _Message(Body):
    """A response as a server would write it: its head, then its body. It is asked for when it is first read."""

    def __init__(self, sent, timeout):
        super().__init__(None, timeout)
        self._sent = sent

    def read_piece(self):
        if self._sent is None:
            return super().read_piece()
        sent, self._sent = self._sent, None
        self._request = start(*sent, timeout=self.timeout)
        head = wait(self._request)
        lines = [f"HTTP/1.1 {head['status']} {head['reason']}"]
        lines += [f"{name}: {value}" for name, value in head["headers"]]
        # The connection serves no second request, and a client that would keep it has to know.
        return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1", "replace")


class Socket:
    """What `http.client` takes for a connection. One request is written to it, and one response read from it."""

    def __init__(self, scheme, host, port, timeout):
        """Raises ConnectionError if the host may not be reached, as connecting would."""
        host = f"[{host}]" if ":" in host else host
        self._origin = f"{scheme}://{host}" if port == _DEFAULT_PORTS[scheme] else f"{scheme}://{host}:{port}"
        self._sent = bytearray()
        self._body = None
        self.settimeout(timeout)
        refusal = _ask("http-check", {"url": self._origin})
        if refusal is not None:
            raise _error(refusal["failure"])

    def settimeout(self, timeout):
        # The object that stands for the default is neither.
        self._timeout = timeout if isinstance(timeout, (int, float)) else None
        if self._body is not None:
            self._body.timeout = self._timeout

    def gettimeout(self):
        return self._timeout

    def setsockopt(self, *_arguments):
        pass

    def shutdown(self, _how):
        pass

    def close(self):
        """The response, which is a file of its own, stays open."""

    def sendall(self, data):
        # Through memoryview, for it refuses what is no bytes.
        self._sent += memoryview(data)

    def makefile(self, _mode="r", _buffering=None, **_options):
        self._body = _Message(self._take_request(), self._timeout)
        return io.BufferedReader(self._body)

    def _take_request(self):
        head, _, body = bytes(self._sent).partition(b"\r\n\r\n")
        self._sent.clear()
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _version = first.split(" ", 2)
        headers = []
        chunked = False
        for line in lines:
            if line[:1] in " \t" and headers:
                headers[-1] = (headers[-1][0], f"{headers[-1][1]} {line.strip()}")
                continue
            name, _, value = line.partition(":")
            headers.append((name, value.strip()))
            chunked = chunked or (name.lower() == "transfer-encoding" and value.strip().lower() == "chunked")
        # A full URL is what one asks of a proxy. The server is the only way out, so it is asked in its stead.
        url = target if target.startswith(("http://", "https://")) else self._origin + target
        return method, url, headers, _join_chunks(body) if chunked else body


def _join_chunks(data):
    pieces = []
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size.split(b";")[0], 16)
        if length == 0:
            break
        pieces.append(data[:length])
        data = data[length + 2 :]
    return b"".join(pieces)


def adapt_http_client(module):
    def connect(self):
        """Nothing is connected here: the server makes the request, to the host that was asked for, whatever the proxy."""
        sys.audit("http.client.connect", self, self.host, self.port)
        scheme = "https" if isinstance(self, module.HTTPSConnection) else "http"
        host, port = (self._tunnel_host, self._tunnel_port) if self._tunnel_host else (self.host, self.port)
        self.sock = Socket(scheme, host, port, self.timeout)

    module.HTTPConnection.connect = connect
    module.HTTPSConnection.connect = connect
    # Certificates are the server's business.
    module._create_https_context = lambda _http_version: None
