"""Stands in for `urllib3.contrib.emscripten`: urllib3's own connections, over our transport."""

import contextlib

import urllib3.connection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError, SSLError

from sandbox_runner import network


class _OverTheServer:
    def _connect(self, scheme):
        host, port = (self._tunnel_host, self._tunnel_port) if self._tunnel_host else (self.host, self.port)
        with self._urllib3_errors():
            self.sock = network.Socket(scheme, host, port, self.timeout)

    def getresponse(self):
        with self._urllib3_errors():
            return super().getresponse()

    @contextlib.contextmanager
    def _urllib3_errors(self):
        try:
            yield
        except OSError as error:
            kind = getattr(error, "kind", None)
            if kind == "tls":
                raise SSLError(error) from error
            if kind == "connect-timeout":
                raise ConnectTimeoutError(self, str(error)) from error
            if kind == "name":
                raise NameResolutionError(self.host, self, error) from error
            if kind in ("refused", "connect"):
                raise NewConnectionError(self, str(error)) from error
            raise


class HTTPConnection(_OverTheServer, urllib3.connection.HTTPConnection):
    def connect(self):
        self._connect("http")


class HTTPSConnection(_OverTheServer, urllib3.connection.HTTPSConnection):
    def connect(self):
        self._connect("https")
        # By the server, whatever was asked for here.
        self.is_verified = True


def inject_into_urllib3():
    HTTPConnectionPool.ConnectionCls = HTTPConnection
    HTTPSConnectionPool.ConnectionCls = HTTPSConnection
    urllib3.connection.HTTPConnection = HTTPConnection
    urllib3.connection.HTTPSConnection = HTTPSConnection
    urllib3.connection.VerifiedHTTPSConnection = HTTPSConnection
