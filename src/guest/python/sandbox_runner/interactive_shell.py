"""`get_ipython()`: what magics do here, and a sentence for each that does nothing.

`notebook.py` makes calls of these methods out of magics and shell lines.
"""

import contextlib
import io
import os
import re
import shlex
import sys
import time
import types
from statistics import fmean, pstdev

from . import display, packages, sources

_SHELL_ALTERNATIVES = {
    "ls": "os.listdir()",
    "dir": "os.listdir()",
    "find": "pathlib.Path().rglob()",
    "pwd": "os.getcwd()",
    "cd": "%cd or os.chdir()",
    "mkdir": "os.makedirs()",
    "rm": "os.remove() or shutil.rmtree()",
    "rmdir": "os.rmdir()",
    "cp": "shutil.copy()",
    "mv": "shutil.move()",
    "touch": "pathlib.Path(…).touch()",
    "cat": "open(…).read()",
    "head": "open(…).readlines()[:10]",
    "tail": "open(…).readlines()[-10:]",
    "wc": "len(open(…).readlines())",
    "grep": "the module re",
    "echo": "print()",
    "env": "os.environ",
    "export": "os.environ",
    "which": "importlib.util.find_spec()",
    "sleep": "time.sleep()",
    "date": "datetime.datetime.now()",
    "wget": "urllib.request.urlretrieve(), where the server allows the host",
    "curl": "urllib.request.urlopen(), where the server allows the host",
    "unzip": "zipfile.ZipFile(…).extractall()",
    "zip": "zipfile.ZipFile()",
    "tar": "tarfile.open()",
    "gzip": "gzip.open()",
    "gunzip": "gzip.open()",
    "python": "runpy.run_path() for a file, or the code itself",
    "python3": "runpy.run_path() for a file, or the code itself",
    "pytest": "unittest, or the tests called as functions",
    "git": "an upload of the files",
    "apt": "%pip for packages in Python; the system has no packages",
    "apt-get": "%pip for packages in Python; the system has no packages",
    "sudo": "code without rights of the system",
    "conda": "%pip install",
    "mamba": "%pip install",
    "nvidia-smi": "code for the processor; there is no GPU",
}
_MAGIC_ALTERNATIVES = {
    "load_ext": "an import of the package",
    "reload_ext": "an import of the package",
    "run": "runpy.run_path(file)",
    "load": "open(file).read()",
    "debug": "the traceback in stderr",
    "pdb": "the traceback in stderr",
    "prun": "cProfile.run(code)",
    "lprun": "cProfile.run(code)",
    "memit": "tracemalloc",
    "mprun": "tracemalloc",
    "history": "In",
    "reset": "an execution without a session, or POST /api/reset with it",
    "reset_selective": "del",
    "store": "a file in the home folder, or a session",
    "conda": "%pip install",
    "mamba": "%pip install",
    "ls": "os.listdir()",
    "ll": "os.listdir()",
    "mkdir": "os.makedirs()",
    "rm": "os.remove()",
    "rmdir": "os.rmdir()",
    "cp": "shutil.copy()",
    "mv": "shutil.move()",
    "cat": "open(file).read()",
    "less": "open(file).read()",
    "more": "open(file).read()",
    "sx": "Python",
    "system": "Python",
    "sql": "the module sqlite3",
    "pylab": "import numpy as np and import matplotlib.pyplot as plt",
    "tensorboard": "figures of matplotlib",
    "gui": "figures of matplotlib",
    "bash": "Python",
    "sh": "Python",
    "script": "Python",
    "cmd": "Python",
    "python": "the code without this line",
    "python3": "the code without this line",
    "javascript": "display(HTML(…)), whose scripts a client may run",
    "js": "display(HTML(…)), whose scripts a client may run",
    "cython": "Python",
    "R": "Python",
}
_PIP_SWITCHES = {
    *("-q", "-qq", "-qqq", "--quiet", "-v", "--verbose", "-U", "--upgrade", "--user", "--pre", "--no-cache-dir", "-I"),
    *("--no-input", "-y", "--yes", "--force-reinstall", "--ignore-installed", "--disable-pip-version-check", "--system"),
    *("--no-warn-script-location", "--break-system-packages", "--prefer-binary", "--no-warn-conflicts", "--progress-bar=off"),
}
_PIP_LINE = re.compile(r"(?:\S*python[\d.]*[ ]+-m[ ]+)?(?:uv[ ]+)?pip[\d.]*[ ]+(.*)$", re.S)


class UsageError(Exception):
    """A magic or a shell line that does nothing here; the message says what does."""

    __module__ = "builtins"


_MAX_RESULTS = 100
_MAX_RESULT_BYTES = 64 * 1024


class Results(dict):
    """`Out` of a session: the last results by the number of their execution, without large ones, which would fill its memory."""

    __slots__ = ()

    def __missing__(self, number):
        raise KeyError(f"Out[{number}]: there was no result, or it is not kept: it is old, or larger than 64 KiB")


class Sources:
    """`In` of a session: the code of its executions by their number, as far as it is kept for tracebacks."""

    __slots__ = ("_prefix",)

    def __init__(self, prefix=""):
        self._prefix = prefix

    def __getitem__(self, number):
        import linecache

        entry = linecache.cache.get(f"<exec {self._prefix}{number}>")
        if entry is None:
            raise IndexError(f"In[{number}]: there was no such execution, or its code is not kept any more")
        return "".join(entry[2])

    def __repr__(self):
        return "In"


def keeps_sources(names):
    """Whether `In` is that of a notebook, also where there is none yet."""
    return type(names.get("In", Sources())) is Sources


class InteractiveShell:
    """As much of IPython's class as notebooks call."""

    def __init__(self):
        self.config = {}
        self.colors = "NoColor"
        self.predefined = {}
        self.display_formatter = types.SimpleNamespace(formatters=display.formatters)
        self.events = types.SimpleNamespace(register=lambda *_: None, unregister=lambda *_: None)
        self._begun = []
        self._results = None
        self._last = None

    def keep_result(self, number, value):
        """Have the value of execution `number` of a session as `_` and in `Out`, as a notebook has it."""
        names = self.user_ns
        if self._results is None:
            self._results = Results()
            names.setdefault("Out", self._results)
            names.setdefault("In", Sources(sources.prefix))
        if value is None:
            return
        # `_` is the program's own once it has used it, as in a loop.
        is_ours = "_" not in names or names["_"] is self._last
        if _is_small(value):
            if len(self._results) >= _MAX_RESULTS:
                dict.pop(self._results, next(iter(self._results)))
            dict.__setitem__(self._results, number, value)
            names[f"_{number}"] = value
            names.pop(f"_{number - _MAX_RESULTS}", None)
        if is_ours:
            for name, older in (("___", "__"), ("__", "_")):
                if older in names and _is_small(names[older]):
                    names[name] = names[older]
                else:
                    names.pop(name, None)
            names["_"] = self._last = value
        else:
            self._last = None

    @property
    def results(self):
        """What `Out` and `_` are of the namespace whose execution runs; another's is set here."""
        return self._results, self._last

    @results.setter
    def results(self, others):
        self._results, self._last = others

    def __getattr__(self, name):
        raise AttributeError(f"{name!r}: the stand-in for IPython's shell has magics and display only")

    @property
    def user_ns(self):
        return sys.modules["__main__"].__dict__

    def run_line_magic(self, magic_name, line, _stack_depth=1):
        """Do what `%magic_name line` does."""
        method = self._magic(magic_name, "line")
        if method is None:
            raise UsageError(_no_magic("%" + magic_name))
        return method(line.strip())

    def run_cell_magic(self, magic_name, line, cell):
        """Do what `%%magic_name line` does with the code below it."""
        method = self._magic(magic_name, "cell")
        if method is None:
            raise UsageError(_no_magic("%%" + magic_name))
        return method(line.strip(), cell)

    def magic(self, text):
        name, _, line = text.lstrip("%").partition(" ")
        return self.run_line_magic(name, line)

    def find_line_magic(self, name):
        return self._magic(name, "line")

    def _magic(self, name, kind):
        return getattr(type(self), f"_{kind}_{name}", None) and getattr(self, f"_{kind}_{name}")

    def system(self, command):
        """Do what `!command` does where that is installing packages; raises UsageError for all else."""
        if match := _PIP_LINE.match(command.strip()):
            return self._line_pip(match[1])
        words = command.split()
        program = words[0] if words else ""
        instead = _SHELL_ALTERNATIVES.get(program.rpartition("/")[2], "Python")
        raise UsageError(f"!{program}: the sandbox has no shell and no other programs. Use {instead} instead.")

    getoutput = getoutput_raw = system_raw = system_piped = system

    # Clocks

    @staticmethod
    def clock():
        return time.perf_counter(), time.process_time()

    def time(self, begun, value):
        """Print how long it took since `begun`, a `clock()`. Returns `value`."""
        wall, cpu = (now - then for now, then in zip(self.clock(), begun))
        print(f"CPU times: user {_duration(cpu)}, sys: 0 ns, total: {_duration(cpu)}\nWall time: {_duration(wall)}")
        return value

    def begin_time(self):
        self._begun.append(self.clock())

    def end_time(self, value):
        return self.time(self._begun.pop(), value)

    def timeit(self, run, options):
        self.user_ns.pop("__timeit__", None)
        number = re.search(r"-n\s*(\d+)", options)
        repeat = re.search(r"-r\s*(\d+)", options)
        repeat = max(1, int(repeat[1])) if repeat else 7
        loops = max(1, int(number[1])) if number else 0
        if not loops:
            loops = 1
            while run(range(loops), time.perf_counter) < 0.2 and loops < 10**9:
                loops *= 10
        times = [run(range(loops), time.perf_counter) / loops for _ in range(repeat)]
        result = TimeitResult(loops, repeat, times)
        if "q" not in options:
            print(result)
        return result if "o" in options else None

    # What is shown

    @contextlib.contextmanager
    def capture(self, arguments):
        words = arguments.split()
        names = [word for word in words if not word.startswith("-")]
        captured = CapturedIO()
        with contextlib.ExitStack() as stack:
            if "--no-stdout" not in words:
                stack.enter_context(contextlib.redirect_stdout(captured._stdout))
            if "--no-stderr" not in words:
                stack.enter_context(contextlib.redirect_stderr(captured._stderr))
            if "--no-display" not in words:
                stack.enter_context(display.captured(captured.outputs))
            try:
                yield
                display.flush_figures()
            finally:
                if names:
                    self.user_ns[names[0]] = captured

    def _cell_html(self, _line, cell):
        display.send({"text/html": cell, "text/plain": "<IPython.core.display.HTML object>"})

    _cell_HTML = _cell_html

    def _cell_markdown(self, _line, cell):
        display.send({"text/markdown": cell, "text/plain": "<IPython.core.display.Markdown object>"})

    def _cell_latex(self, _line, cell):
        display.send({"text/latex": cell, "text/plain": "<IPython.core.display.Latex object>"})

    def _cell_svg(self, _line, cell):
        display.send({"image/svg+xml": cell, "text/plain": "<IPython.core.display.SVG object>"})

    _cell_SVG = _cell_svg

    def _cell_writefile(self, line, cell):
        words = shlex.split(line)
        appends = any(word in ("-a", "--append") for word in words)
        names = [word for word in words if not word.startswith("-")]
        if len(names) != 1:
            raise UsageError("%%writefile: name one file.")
        path = os.path.expanduser(names[0])
        print(f"{'Appending to' if appends else 'Overwriting' if os.path.exists(path) else 'Writing'} {names[0]}")
        with open(path, "a" if appends else "w", encoding="utf-8") as file:
            file.write(cell)

    _cell_file = _cell_writefile

    # Lines

    def _line_matplotlib(self, _line):
        """Figures are shown inline in any case."""

    def _line_config(self, line):
        """How figures look and how names are completed is not configured; editors say before each notebook how they would like it."""
        if not line.startswith(("InlineBackend", "Completer", "IPCompleter")):
            raise UsageError(f"%config {line}: nothing of IPython's can be configured here.")
        wanted = re.match(r"InlineBackend\.figure_formats?\s*=\s*(.*)", line)
        if wanted and set(re.findall(r"\w+", wanted[1])) - {"png", "set"}:
            sys.stderr.write(f"%config {line}: figures are PNGs here; savefig() writes other formats, and display(SVG(…)) shows one.\n")

    def _line_load_ext(self, line):
        if line.strip() != "autoreload":
            raise UsageError(_no_magic("%load_ext"))

    _line_reload_ext = _line_load_ext

    def _line_autoreload(self, _line):
        """The first lines of many notebooks; modules are files that an execution imports anew, or a session's `importlib.reload`."""

    def _line_pinfo(self, line):
        import inspect

        name = line.rstrip("?")
        if name.startswith("%"):
            if self._magic(name.lstrip("%"), "line") is None and name.lstrip("%") not in ("time", "timeit", "capture"):
                raise UsageError(_no_magic(name))
            print(f"{name} works as in IPython.")
            return
        if not re.fullmatch(r"[\w.\[\]'\"]+", name):
            raise UsageError(f"{line}: names are not searched for here. Use dir() instead.")
        try:
            value = eval(name, self.user_ns)
        except NameError:
            print(f"Object `{name}` not found.")
            return
        with contextlib.suppress(TypeError, ValueError):
            print(f"Signature: {name}{inspect.signature(value)}")
        print(f"Type:      {type(value).__name__}")
        if not callable(value):
            print(f"String form: {value}")
        if line.endswith("??"):
            with contextlib.suppress(TypeError, OSError):
                print(f"Source:\n{inspect.getsource(value)}")
                return
        print(f"Docstring:\n{inspect.getdoc(value) or '<no docstring>'}")

    def _line_pinfo2(self, line):
        return self._line_pinfo(f"{line}??")

    def _names(self, line):
        kinds = set(line.split())
        predefined = self.predefined
        return sorted(
            name
            for name, value in self.user_ns.items()
            if not name.startswith("_")
            and name not in ("In", "Out")
            and predefined.get(name, predefined) is not value
            and (not kinds or type(value).__name__ in kinds)
        )

    def _line_who(self, line):
        names = self._names(line)
        print("\t ".join(names) if names else "Interactive namespace is empty.")

    def _line_who_ls(self, line):
        return self._names(line)

    def _line_whos(self, line):
        names = self._names(line)
        if not names:
            print("Interactive namespace is empty.")
            return
        width = max(len("Variable"), *map(len, names))
        print(f"{'Variable':{width}}   {'Type':12}   Data/Info\n{'-' * (width + 30)}")
        for name in names:
            value = self.user_ns[name]
            text = " ".join(repr(value).split())
            print(f"{name:{width}}   {type(value).__name__:12}   {text if len(text) < 60 else text[:57] + '…'}")

    def _line_env(self, line):
        if line == "":
            return dict(os.environ)
        name, has_value, value = line.partition("=") if "=" in line else line.partition(" ")
        name, value = name.strip(), value.strip()
        if not has_value:
            return os.environ[name]
        os.environ[name] = value
        print(f"env: {name}={value}")
        return None

    _line_set_env = _line_env

    def _line_cd(self, line):
        words = shlex.split(line)
        folder = os.path.expanduser(next((word for word in words if word != "-q"), "~"))
        os.chdir(folder)
        if "-q" not in words:
            print(os.getcwd())

    def _line_pwd(self, _line):
        return os.getcwd()

    def _line_pip(self, line):
        """Install as a notebook does: what fails is told in stderr, and the code goes on."""
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise UsageError(f"%pip {line}: {error}.") from None
        command = words[0] if words else ""
        if command in ("list", "freeze"):
            for name, version in sorted(packages.list().items(), key=lambda item: item[0].lower()):
                print(f"{name}=={version}" if command == "freeze" else f"{name} {version}")
            return
        if command != "install":
            raise UsageError(f"%pip {command}: only install, list and freeze work here.")
        wanted = []
        rest = iter(words[1:])
        for word in rest:
            if word in ("-r", "--requirement"):
                with open(next(rest, ""), encoding="utf-8") as file:
                    listed = (text.partition("#")[0].strip() for text in file)
                    wanted += [text for text in listed if text]
            elif word in _PIP_SWITCHES:
                continue
            elif word.startswith("-"):
                raise UsageError(f"%pip install {word}: the option does nothing here, the server decides where packages come from.")
            elif word not in ("pip", "setuptools", "wheel"):
                wanted.append(word)
        if not wanted and len(words) == 1:
            raise UsageError("%pip install: name a package.")
        for requirement in wanted:
            try:
                packages.install_now([requirement])
            except ValueError as error:
                print(f"ERROR: {error}", file=sys.stderr)


class CapturedIO:
    """What `%%capture` took away."""

    def __init__(self):
        self._stdout = io.StringIO()
        self._stderr = io.StringIO()
        self.outputs = []

    @property
    def stdout(self):
        return self._stdout.getvalue()

    @property
    def stderr(self):
        return self._stderr.getvalue()

    def __str__(self):
        return self.stdout

    def show(self):
        sys.stdout.write(self.stdout)
        sys.stderr.write(self.stderr)
        for bundle in self.outputs:
            display.send(bundle)

    __call__ = show


class TimeitResult:
    """What `%timeit -o` returns."""

    def __init__(self, loops, repeat, times):
        self.loops = loops
        self.repeat = repeat
        self.timings = self.all_runs = times
        self.best = min(times)
        self.worst = max(times)
        self.average = fmean(times)
        self.stdev = pstdev(times)

    def __str__(self):
        runs = f"{self.repeat} run{'s' if self.repeat > 1 else ''}, {self.loops:,} loop{'s' if self.loops > 1 else ''} each"
        return f"{_duration(self.average)} ± {_duration(self.stdev)} per loop (mean ± std. dev. of {runs})"

    __repr__ = __str__


def _is_small(value):
    try:
        return sys.getsizeof(value) <= _MAX_RESULT_BYTES
    except Exception:
        return False


def _no_magic(name):
    instead = _MAGIC_ALTERNATIVES.get(name.lstrip("%"))
    if instead is None:
        return f"{name}: this magic is not there. Magics are IPython's, and the sandbox has the usual ones only: write it in Python."
    return f"{name}: this magic is not there. Use {instead} instead."


def _duration(seconds):
    if seconds >= 60:
        return f"{int(seconds // 60)}min {int(seconds % 60)}s"
    for unit, scale in (("s", 1), ("ms", 1e3), ("μs", 1e6)):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


shell = InteractiveShell()


def get_ipython():
    """The notebook's shell: magics, and what is shown how."""
    return shell
