"""Gives defined, friendly answers where the sandbox offers nothing: processes, threads, JavaScript.

Convenience, not a boundary: whatever is patched here can be unpatched by user code. The boundary is the process.
"""

import _signal
import os
import signal
import sys
import time
import types

from . import device, ending, packages, refusals


class ProcessExit(BaseException):
    """`os._exit` and `os.abort` end the execution, not the interpreter."""

    __module__ = "builtins"

    def __init__(self, code):
        super().__init__(code)
        self.code = code


def install():
    _forbid_processes()
    _forbid_timers()
    _replace_sleep()
    _replace_javascript()
    _complete_hashlib()
    refusals.refuse_threads()
    refusals.refuse_sockets()
    refusals.refuse_async_subprocesses()
    sys.modules["micropip"] = packages


def _forbid_processes():
    def forbidden(name):
        def call(*_args, **_kwargs):
            raise PermissionError(
                1, f"os.{name} is not permitted in the sandbox: it has one process and no other programs; write it in Python"
            )

        call.__name__ = call.__qualname__ = name
        return call

    names = ["system", "popen", "fork", "forkpty", "posix_spawn", "posix_spawnp", "kill", "killpg", "wait", "waitpid"]
    names += [name for name in dir(os) if name.startswith(("exec", "spawn")) and callable(getattr(os, name))]
    posix = sys.modules["posix"]
    for name in names:
        for module in (os, posix):
            if hasattr(module, name):
                setattr(module, name, forbidden(name))

    def _exit(status=0):
        ending.abandon()
        raise ProcessExit(status)

    def abort():
        ending.abandon()
        raise ProcessExit(134)

    for module in (os, posix):
        module._exit = _exit
        module.abort = abort


def _forbid_timers():
    def unsupported(name):
        def call(*_args, **_kwargs):
            raise OSError(f"signal.{name} is not supported in the sandbox: nothing could deliver the signal")

        call.__name__ = call.__qualname__ = name
        return call

    for name in ("alarm", "setitimer", "pause", "sigwait", "sigtimedwait"):
        for module in (signal, _signal):
            if hasattr(module, name):
                setattr(module, name, unsupported(name))


_begun = 0.0
"""When the execution began; later by what was slept since, so that it is where the processor's time counts from."""


def begin():
    """Called when an execution begins."""
    global _begun
    _begun = time.perf_counter()


def sleep_once(seconds):
    """Sleep without using the processor. The device returns early on an interrupt, which the next bytecode then handles."""
    start = time.monotonic()
    try:
        device.tell("sleep", min(seconds, 3600.0) * 1000)
    finally:
        count_as_slept(time.monotonic() - start)


def count_as_slept(seconds):
    """Leave a wait out of the processor's time."""
    global _begun
    _begun += seconds


def _replace_sleep():
    def sleep(seconds, /):
        """Delay execution for a given number of seconds. Blocks without using the processor."""
        try:
            duration = float(seconds)
        except TypeError:
            if not hasattr(seconds, "__index__"):
                raise
            duration = float(seconds.__index__())
        if duration != duration:
            raise ValueError("Invalid value NaN (not a number)")
        if duration < 0:
            raise ValueError("sleep length must be non-negative")
        deadline = time.monotonic() + duration
        while (left := deadline - time.monotonic()) > 0:
            sleep_once(left)
        if duration == 0:
            sleep_once(0)

    def process_time():
        """Seconds since the execution began, without those that were slept: there is no clock of the processor's time."""
        return time.perf_counter() - _begun

    def process_time_ns():
        """As `process_time`, in nanoseconds."""
        return int(process_time() * 1e9)

    for function in (sleep, process_time, process_time_ns):
        function.__module__ = "time"
        function.__qualname__ = function.__name__
        setattr(time, function.__name__, function)
    time.thread_time, time.thread_time_ns = process_time, process_time_ns


_NO_JAVASCRIPT = "gives no access to JavaScript; show HTML with display(HTML(…)), and return data as the result"


def _complete_hashlib():
    """OpenSSL's functions that passwords are hashed with are not in this build."""
    import hashlib

    if hasattr(hashlib, "pbkdf2_hmac"):
        return

    def pbkdf2_hmac(hash_name, password, salt, iterations, dklen=None):
        """Password based key derivation function 2 (PKCS #5 v2.0), computed in Python."""
        if not isinstance(hash_name, str):
            raise TypeError(hash_name)
        password, salt = bytes(memoryview(password)), bytes(memoryview(salt))
        inner, outer = hashlib.new(hash_name), hashlib.new(hash_name)
        length = dklen if dklen is not None else inner.digest_size
        if length < 1:
            raise ValueError(dklen)
        if iterations < 1:
            raise ValueError(iterations)
        if len(password) > inner.block_size:
            password = hashlib.new(hash_name, password).digest()
        password += b"\0" * (inner.block_size - len(password))
        inner.update(password.translate(bytes(byte ^ 0x36 for byte in range(256))))
        outer.update(password.translate(bytes(byte ^ 0x5C for byte in range(256))))

        def mac(message):
            first, second = inner.copy(), outer.copy()
            first.update(message)
            second.update(first.digest())
            return second.digest()

        key = b""
        block = 1
        while len(key) < length:
            previous = mac(salt + block.to_bytes(4, "big"))
            total = int.from_bytes(previous, "big")
            for _ in range(iterations - 1):
                previous = mac(previous)
                total ^= int.from_bytes(previous, "big")
            block += 1
            key += total.to_bytes(inner.digest_size, "big")
        return key[:length]

    pbkdf2_hmac.__module__ = "hashlib"
    hashlib.pbkdf2_hmac = pbkdf2_hmac


def _replace_javascript():
    """A stand-in for `js` written in Python; nothing in it reaches JavaScript."""
    js = types.ModuleType("js", "A stand-in: user code in this sandbox has no access to JavaScript.")

    class Console:
        def _print(self, *values):
            print(*values)

        def _print_error(self, *values):
            print(*values, file=sys.stderr)

        log = info = debug = _print
        warn = error = _print_error

    def missing(name):
        raise AttributeError(
            f"module 'js' has no attribute {name!r}: the sandbox {_NO_JAVASCRIPT}", name=name, obj=js
        )

    js.console = Console()
    js.__getattr__ = missing
    sys.modules["js"] = js

    for name in ("pyodide_js", "pyodide_js._api"):
        sys.modules.pop(name, None)

    import pyodide.code

    def run_js(_code, /):
        raise PermissionError(1, f"run_js is not permitted in the sandbox: it {_NO_JAVASCRIPT}")

    pyodide.code.run_js = run_js
    import pyodide.ffi

    def refused(name):
        def call(*_args, **_options):
            raise PermissionError(1, f"pyodide.ffi.{name} is not permitted in the sandbox: it {_NO_JAVASCRIPT}")

        call.__name__ = call.__qualname__ = name
        return call

    for name in ("to_js", "create_proxy", "create_once_callable", "destroy_proxies", "run_sync", "register_js_module"):
        if hasattr(pyodide.ffi, name):
            setattr(pyodide.ffi, name, refused(name))
    sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "JsFinder"]
    sys.meta_path.insert(0, _JavaScriptFinder())


class _JavaScriptFinder:
    """Says plainly why `import pyodide_js` fails."""

    @staticmethod
    def find_spec(name, _path=None, _target=None):
        if name == "pyodide_js" or name.startswith(("pyodide_js.", "js.")):
            raise ModuleNotFoundError(f"No module named {name!r}: the sandbox {_NO_JAVASCRIPT}", name=name)
        return None
