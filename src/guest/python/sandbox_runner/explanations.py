"""Says more about a module or a name that is not there: why not, and what to use instead.

Asked about an exception that ended an execution, so code that catches it finds Python's own.
"""

import sys

from . import device

_NO_SCREEN = "the sandbox has no screen; draw with matplotlib, or show HTML with display(HTML(…))"
_NO_TERMINAL = "the sandbox has no terminal; use print() and input()"
_NO_USERS = "the sandbox has no users; use getpass.getuser()"
_ONE_PROCESS = "the sandbox has one process; call functions one after another, or use concurrent.futures.ThreadPoolExecutor, which does that here"
_NO_INSTALLING = "the server installs packages; use `await micropip.install(…)` or a line `%pip install …`"
_WINDOWS = "it is for Windows, and the sandbox is no Windows"
_OTHER_SYSTEM = "it is for another operating system"
_INTERNAL = "it is a part of Python's own that this build does without"
_NO_JAVASCRIPT = "the sandbox gives no access to JavaScript; show HTML with display(HTML(…)), and return data as the result"

_MODULES = {
    **dict.fromkeys(("tkinter", "_tkinter", "turtle", "turtledemo", "idlelib"), _NO_SCREEN),
    **dict.fromkeys(("curses", "_curses", "_curses_panel", "readline"), _NO_TERMINAL),
    **dict.fromkeys(("dbm", "_dbm", "_gdbm"), "this Python has no dbm, which shelve needs; use sqlite3, or pickle and a file"),
    **dict.fromkeys(("grp", "pwd"), _NO_USERS),
    **dict.fromkeys(("_multiprocessing", "_posixshmem"), _ONE_PROCESS),
    **dict.fromkeys(("_interpreters", "_interpchannels", "_interpqueues"), _ONE_PROCESS),
    **dict.fromkeys(("ensurepip", "venv", "pip", "setuptools", "pkg_resources", "wheel"), _NO_INSTALLING),
    **dict.fromkeys(("msvcrt", "nt", "winreg", "winsound", "_winapi", "_wmi", "_overlapped"), _WINDOWS),
    **dict.fromkeys(("_aix_support", "_android_support", "_apple_support", "_ios_support", "_osx_support", "_scproxy"), _OTHER_SYSTEM),
    **dict.fromkeys(("_hashlib", "_uuid", "_pydecimal"), _INTERNAL),
    "pydoc_data": "this build has no topics for help(); use help() with an object",
    "resource": "the server sets the limits; measure memory with tracemalloc and time with time.perf_counter()",
    "syslog": "the sandbox has no system log; use logging",
    "test": "this build has none of Python's own tests",
    # Removed from Python itself.
    "aifc": "it was removed in Python 3.13; use wave, or a package",
    "asynchat": "it was removed in Python 3.12; use asyncio",
    "asyncore": "it was removed in Python 3.12; use asyncio",
    "audioop": "it was removed in Python 3.13; use numpy",
    "cgi": "it was removed in Python 3.13; use urllib.parse and email.message",
    "cgitb": "it was removed in Python 3.13; use traceback",
    "chunk": "it was removed in Python 3.13; use struct",
    "crypt": "it was removed in Python 3.13; use hashlib",
    "distutils": "it was removed in Python 3.12; use shutil, sysconfig or packaging",
    "imghdr": "it was removed in Python 3.13; use PIL.Image.open(…).format",
    "imp": "it was removed in Python 3.12; use importlib",
    "lib2to3": "it was removed in Python 3.13; use ast",
    "mailcap": "it was removed in Python 3.13; use mimetypes",
    "msilib": _WINDOWS,
    "nis": _NO_USERS,
    "nntplib": "it was removed in Python 3.13, and the sandbox has no sockets",
    "ossaudiodev": "it was removed in Python 3.13, and the sandbox has no sound",
    "pipes": "it was removed in Python 3.13; use shlex",
    "smtpd": "it was removed in Python 3.12, and the sandbox has no sockets",
    "sndhdr": "it was removed in Python 3.13; use wave",
    "spwd": _NO_USERS,
    "sunau": "it was removed in Python 3.13; use wave",
    "telnetlib": "it was removed in Python 3.13, and the sandbox has no sockets",
    "uu": "it was removed in Python 3.13; use base64",
    "xdrlib": "it was removed in Python 3.13; use struct",
}
_NO_SIGNALS = "nothing could deliver the signal; the server ends code that takes too long"
_ATTRIBUTES = {
    ("time", "tzset"): "the sandbox's clock is in UTC, whatever TZ says; use zoneinfo.ZoneInfo",
    ("hashlib", "scrypt"): "it needs OpenSSL, which this build does without; use hashlib.pbkdf2_hmac",
    ("hashlib", "file_digest"): "read the file and use hashlib.new",
    ("concurrent.futures", "InterpreterPoolExecutor"): _ONE_PROCESS,
    **{
        ("signal", name): _NO_SIGNALS
        for name in (
            *("alarm", "setitimer", "getitimer", "pause", "sigwait", "sigwaitinfo", "sigtimedwait", "pthread_kill"),
            *("siginterrupt", "pthread_sigmask", "sigpending", "ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF"),
        )
    },
    ("os", "link"): "the file system has no hard links; use os.symlink or shutil.copy",
    ("os", "nice"): _ONE_PROCESS,
    ("os", "mkfifo"): "the file system has no named pipes; use os.pipe",
    ("os", "mknod"): "the file system has no devices; use open",
    ("os", "startfile"): _WINDOWS,
    ("os", "memfd_create"): "use io.BytesIO or tempfile.TemporaryFile",
    ("os", "sendfile"): "use shutil.copyfileobj",
    ("os", "copy_file_range"): "use shutil.copyfileobj",
    ("os", "getrandom"): "use os.urandom",
    ("os", "getgroups"): _NO_USERS,
    ("os", "initgroups"): _NO_USERS,
    **{("os", name): "the sandbox has one processor; use os.cpu_count()" for name in ("sched_getaffinity", "sched_setaffinity")},
    **{("os", name): _NO_TERMINAL for name in ("openpty", "login_tty", "posix_openpt")},
    **{("os", name): "the file system has no extended attributes" for name in ("getxattr", "setxattr", "listxattr", "removexattr")},
    **{
        ("os", name): _ONE_PROCESS
        for name in (
            *("fork", "forkpty", "posix_spawn", "posix_spawnp", "pidfd_open", "wait3", "wait4", "waitpid", "wait", "killpg"),
            *("eventfd", "timerfd_create", "unshare", "setns", "spawnvp", "spawnvpe", "spawnlp", "spawnlpe", "plock"),
        )
    },
    ("socket", "AF_UNIX"): "the sandbox has no sockets",
}


_END_OF_INPUT = "EOF when reading a line"


def explain(error):
    """Make the message of an exception that ended the execution say more, where that is known."""
    kind = type(error)
    if kind is AttributeError:
        module = getattr(error.obj, "__name__", None) if type(error.obj) is type(sys) else None
        text = _of_attribute(module, error.name)
        if text is not None and len(error.args) == 1 and text not in str(error):
            error.args = (f"{error.args[0]}: {text}",)
    elif kind is EOFError:
        if error.args == (_END_OF_INPUT,):
            error.args = (f"{_END_OF_INPUT}: input() reads the request's `stdin`, which has no more lines",)
    elif kind is ImportError or kind is ModuleNotFoundError:
        name = error.name
        if type(name) is not str or type(error.msg) is not str:
            return
        if kind is ImportError:
            text = _of_attribute(name, getattr(error, "name_from", None))
        # What a package says itself is left as it is.
        elif error.msg == f"No module named {name!r}":
            text = _of_module(name)
        else:
            text = None
        if text is not None:
            error.msg = f"{error.msg}: {text}"


def _of_attribute(module, name):
    if module == "js":
        return _NO_JAVASCRIPT
    return _ATTRIBUTES.get((module, name))


def _of_module(name):
    top = name.partition(".")[0]
    if top == "IPython":
        return "the sandbox has a stand-in for IPython, with IPython.display and get_ipython"
    if top in sys.modules and top != name:
        # A part of what is there. Its name says enough, or it is that of an older version.
        return None
    if top in _MODULES and top not in ("setuptools", "pkg_resources"):
        return _MODULES[top]
    try:
        text = device.ask("explain-module", top)
    except OSError:
        return _MODULES.get(top)
    return text if type(text) is str else _MODULES.get(top)
