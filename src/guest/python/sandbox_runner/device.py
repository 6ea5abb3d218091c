"""The one way out of Python: a character device whose other end is ``guest/io/device.ts``.

Strings and bytes only. A proxy to a JavaScript object, which the usual way out of Pyodide would create, is finalised by
JavaScript's garbage collector at any time, and after a rewind that would change a reference count in another
execution's memory.
"""

import os
from json import dumps, loads

FD = 4000
"""Opened by ``guest/io/device.ts`` under this number, far above what user code gets from ``open``."""


def tell(operation, argument=None):
    """Send a message that has no answer."""
    # A lone surrogate becomes what JSON writes for it.
    os.write(FD, dumps([operation, argument], ensure_ascii=False).encode("utf-8", "backslashreplace"))


def ask(operation, argument=None):
    """Send a message and block until the host answers.

    Returns the answer's JSON value. Raises OSError with the host's reason where it refuses.
    """
    return ask_for_bytes(operation, argument)[0]


def ask_for_bytes(operation, argument=None):
    """As :func:`ask`. Returns the answer's JSON value and the bytes that came with it."""
    tell(operation, argument)
    answer = bytearray()
    while chunk := os.read(FD, 1 << 20):
        answer += chunk
    head, _, body = answer.partition(b"\n")
    value = loads(head)
    if "error" in value:
        raise OSError(value["error"])
    return value["value"], bytes(body)
