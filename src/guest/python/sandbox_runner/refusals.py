"""Sentences where the sandbox offers nothing: why not, and what does."""

import errno
import os
import shlex
import sys

_NO_PROGRAMS = "the sandbox has one process and no other programs"


def adapt_subprocess(module):
    def refuse(self, args=(), *_args, **_options):
        # What `__del__` asks for.
        self._child_created = False
        self.returncode = None
        raise OSError(errno.ENOTSUP, f"subprocess cannot run {_shown(args)}: {_NO_PROGRAMS}; {_instead_of(args)}")

    module.Popen.__init__ = refuse


def _words(args):
    if isinstance(args, (bytes, os.PathLike)):
        args = os.fsdecode(args)
    if isinstance(args, str):
        try:
            return shlex.split(args)
        except ValueError:
            return args.split()
    try:
        return [os.fsdecode(word) for word in args]
    except TypeError:
        return []


def _shown(args):
    words = _words(args)
    program = "python" if words[:1] == [sys.executable] else words[0].rpartition("/")[2] if words else ""
    text = " ".join([program, *words[1:]])
    return repr(text if len(text) <= 100 else text[:99] + "…")


def _instead_of(args):
    words = _words(args)
    program = words[0].rpartition("/")[2] if words else ""
    is_python = program.startswith("python") or (words[:1] == [sys.executable] and sys.executable != "")
    if is_python and words[1:2] == ["-m"]:
        program, words = words[2] if len(words) > 2 else "", words[2:]
        is_python = program not in ("pip", "uv")
    if program in ("pip", "pip3", "uv", "conda", "mamba", "poetry"):
        names = [word for word in words[1:] if not word.startswith("-") and word not in ("pip", "install", "add")]
        return f"install packages with `await micropip.install({names or ['…']!r})` or a line `%pip install {' '.join(names) or '…'}`"
    if is_python:
        return "use runpy.run_path() or runpy.run_module(), or call its functions"
    return "write it in Python"


def adapt_debugger(module):
    def do_EOF(self, _arg):
        """Say what is missing: elsewhere, a terminal whose user has left is the program's end."""
        raise RuntimeError(
            "the debugger (breakpoint(), pdb) has no terminal here: its commands are lines of `stdin`, which has no more; print values instead"
        )

    module.Pdb.do_EOF = do_EOF


def adapt_webbrowser(module):
    import warnings

    def open(url, new=0, autoraise=True):
        """Open nothing, and return False, as where Python finds no browser."""
        warnings.warn(
            f"webbrowser cannot open {url!r}: the sandbox has no browser; print the address, or display(HTML(…)) a link",
            RuntimeWarning,
            stacklevel=2,
        )
        return False

    module.open = open
    module.open_new = module.open_new_tab = lambda url: open(url)


def adapt_tqdm(module):
    # Its monitor is a thread, and where none can be started it warns.
    module.tqdm.monitor_interval = 0


def refuse_threads():
    import _thread
    import threading

    def refuse(*_args, **_options):
        raise RuntimeError(
            "can't start new thread: the sandbox has one thread; call the function itself, or use asyncio or "
            "concurrent.futures.ThreadPoolExecutor, whose tasks run one after another here"
        )

    _thread.start_new_thread = _thread.start_new = threading._start_joinable_thread = _thread.start_joinable_thread = refuse


def refuse_sockets():
    import _socket
    import socket

    instead = "use urllib.request, requests or httpx, for which the server makes the request where it allows the host"
    create = socket.socket.__init__
    look_up = {name: getattr(socket, name) for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr")}

    def __init__(self, *args, **options):
        try:
            create(self, *args, **options)
        except PermissionError as error:
            raise PermissionError(error.errno, f"the sandbox has no sockets; {instead}") from None

    def refusing(name, original):
        def call(*args, **options):
            try:
                return original(*args, **options)
            except socket.gaierror as error:
                message = f"socket.{name}: the sandbox has no network of its own, so it looks no names up; {instead}"
                raise socket.gaierror(error.errno, message) from None

        call.__name__ = call.__qualname__ = name
        return call

    socket.socket.__init__ = __init__
    for name, original in look_up.items():
        setattr(socket, name, refusing(name, original))
        if name != "getaddrinfo":
            setattr(_socket, name, getattr(socket, name))


def refuse_async_subprocesses():
    from asyncio import base_events

    async def refuse(self, _protocol, args, *_args, **_options):
        raise NotImplementedError(f"asyncio cannot run {_shown(args)}: {_NO_PROGRAMS}; {_instead_of(args)}")

    base_events.BaseEventLoop._make_subprocess_transport = refuse
