"""Runs a command line without a shell: `python`, `pip install`, and a table of what is done with files.

The server puts what is asked behind it, as JSON: `command`, `cwd`, `stdin`. The value is the exit status.
"""


def _run_command(asked):
    import contextlib
    import fnmatch
    import io
    import json
    import os
    import shlex
    import shutil
    import stat
    import sys
    import time
    import traceback
    import types

    command, cwd, stdin = (json.loads(asked)[key] for key in ("command", "cwd", "stdin"))

    class Refused(Exception):
        """Something that a shell has and this has not."""

    class Failed(Exception):
        """A command's own message, and exit status 1."""

    def say(text):
        sys.stdout.write(text)

    def complain(text):
        sys.stderr.write(text + "\n")

    def options(arguments, known):
        given, rest = set(), []
        for index, argument in enumerate(arguments):
            if argument == "--":
                return given, rest + arguments[index + 1 :]
            if argument.startswith("-") and argument != "-":
                for letter in argument.lstrip("-") if not argument.startswith("--") else [argument]:
                    if letter not in known:
                        raise Failed(f"option {argument} is not known here")
                    given.add(letter)
            else:
                rest.append(argument)
        return given, rest

    def reason(error):
        return error.strerror or str(error)

    def each(paths, action):
        status = 0
        for path in paths:
            try:
                action(path)
            except OSError as error:
                complain(f"{name}: {path}: {reason(error)}")
                status = 1
        return status

    def ls(arguments):
        given, paths = options(arguments, {*"alhdR1tr", "--all"})
        hidden = bool(given & {"a", "--all"})

        def line(path, shown):
            if "l" not in given:
                return shown
            info = os.stat(path, follow_symlinks=False)
            when = time.strftime("%b %e %H:%M", time.gmtime(info.st_mtime))
            return f"{stat.filemode(info.st_mode)} 1 user user {info.st_size:>8} {when} {shown}"

        def show(path):
            if "d" in given or not os.path.isdir(path):
                os.stat(path)
                say(line(path, path) + "\n")
                return
            if len(paths) > 1 or "R" in given:
                say(f"{path}:\n")
            entries = [entry for entry in os.listdir(path) if hidden or not entry.startswith(".")]
            if "t" in given:
                entries.sort(key=lambda entry: -os.lstat(os.path.join(path, entry)).st_mtime)
            else:
                entries.sort()
            if "r" in given:
                entries.reverse()
            for entry in ([".", ".."] if hidden else []) + entries:
                say(line(os.path.join(path, entry), entry) + "\n")
            if "R" in given:
                for entry in entries:
                    below = os.path.join(path, entry)
                    if os.path.isdir(below):
                        say("\n")
                        show(below)

        return each(paths or ["."], show)

    def cat(arguments):
        _, paths = options(arguments, {*"nu"})

        def show(path):
            if path == "-":
                say(sys.stdin.read())
                return
            with open(path, "rb") as file:
                sys.stdout.write(file.read().decode("utf-8", "replace"))

        return each(paths or ["-"], show)

    def mkdir(arguments):
        given, paths = options(arguments, {"p", "v", "--parents"})
        deep = bool(given & {"p", "--parents"})
        return each(paths, lambda path: os.makedirs(path, exist_ok=True) if deep else os.mkdir(path))

    def rm(arguments):
        given, paths = options(arguments, {*"rRfvd", "--recursive", "--force"})

        def remove(path):
            if not os.path.lexists(path):
                if given & {"f", "--force"}:
                    return
                raise FileNotFoundError(2, "No such file or directory")
            if os.path.isdir(path) and not os.path.islink(path):
                if not given & {"r", "R", "--recursive"}:
                    raise IsADirectoryError(21, "Is a directory")
                shutil.rmtree(path)
            else:
                os.remove(path)

        return each(paths, remove)

    def rmdir(arguments):
        return each(options(arguments, {"p"})[1], os.rmdir)

    def touch(arguments):
        def make(path):
            with open(path, "ab"):
                pass
            os.utime(path)

        return each(options(arguments, {*"acm"})[1], make)

    def into(arguments, known):
        given, paths = options(arguments, known)
        if len(paths) < 2:
            raise Failed("missing operand")
        *sources, target = paths
        if len(sources) > 1 and not os.path.isdir(target):
            raise Failed(f"target '{target}' is not a directory")
        return given, sources, target

    def mv(arguments):
        _, sources, target = into(arguments, {*"fv"})

        def move(path):
            if not os.path.lexists(path):
                raise FileNotFoundError(2, "No such file or directory")
            goal = os.path.join(target, os.path.basename(path)) if os.path.isdir(target) else target
            shutil.move(path, goal)

        return each(sources, move)

    def cp(arguments):
        given, sources, target = into(arguments, {*"rRafpv"})

        def copy(path):
            goal = os.path.join(target, os.path.basename(path)) if os.path.isdir(target) else target
            if os.path.isdir(path):
                if not given & {"r", "R", "a"}:
                    raise IsADirectoryError(21, "Is a directory (not copied without -r)")
                shutil.copytree(path, goal, dirs_exist_ok=True)
            else:
                shutil.copyfile(path, goal)

        return each(sources, copy)

    def echo(arguments):
        end = "\n"
        while arguments and arguments[0] in ("-n", "-e"):
            if arguments.pop(0) == "-n":
                end = ""
        say(" ".join(arguments) + end)

    def printf(arguments):
        if not arguments:
            raise Failed("usage: printf format [arguments]")
        form = arguments[0].encode("latin-1", "backslashreplace").decode("unicode_escape")
        values = arguments[1:]
        say(form % tuple(values[: form.count("%") - 2 * form.count("%%")]))

    def cut_lines(arguments, last):
        count, paths = 10, []
        arguments = list(arguments)
        while arguments:
            argument = arguments.pop(0)
            if argument == "-n" and arguments:
                count = int(arguments.pop(0))
            elif argument.startswith("-") and argument.lstrip("-n").isdigit():
                count = int(argument.lstrip("-n"))
            else:
                paths.append(argument)

        def show(path):
            with open(path, encoding="utf-8", errors="replace") if path != "-" else contextlib.nullcontext(sys.stdin) as file:
                lines = file.readlines()
            say("".join(lines[max(0, len(lines) - count) :] if last else lines[:count]))

        return each(paths or ["-"], show)

    def wc(arguments):
        given, paths = options(arguments, {*"lwc"})

        def count(path):
            with open(path, "rb") if path != "-" else contextlib.nullcontext(io.BytesIO(sys.stdin.read().encode())) as file:
                data = file.read()
            counts = {"l": data.count(b"\n"), "w": len(data.split()), "c": len(data)}
            shown = " ".join(str(counts[letter]) for letter in "lwc" if not given or letter in given)
            say(shown + ("" if path == "-" else f" {path}") + "\n")

        return each(paths or ["-"], count)

    def env(arguments):
        if arguments:
            raise Failed("a command to run is not taken here")
        for key, value in os.environ.items():
            say(f"{key}={value}\n")

    def cd(arguments):
        os.chdir(arguments[0] if arguments else "/home/user")

    def export(arguments):
        for argument in arguments:
            key, _, value = argument.partition("=")
            os.environ[key] = value

    def sleep(arguments):
        time.sleep(sum(float(argument.removesuffix("s")) for argument in arguments))

    def which(arguments):
        found = [argument for argument in arguments if argument in COMMANDS]
        for argument in found:
            say(f"/usr/bin/{argument}\n")
        return 0 if len(found) == len(arguments) else 1

    def whoami(arguments):
        say("user\n")

    def test_file(arguments):
        arguments = [argument for argument in arguments if argument != "]"]
        if len(arguments) == 2 and arguments[0] in ("-e", "-f", "-d", "-s"):
            path = arguments[1]
            found = {"-e": os.path.exists, "-f": os.path.isfile, "-d": os.path.isdir}.get(arguments[0], os.path.exists)(path)
            return 0 if found and (arguments[0] != "-s" or os.path.getsize(path) > 0) else 1
        if len(arguments) == 3 and arguments[1] in ("=", "==", "!="):
            return 0 if (arguments[0] == arguments[2]) == (arguments[1] != "!=") else 1
        raise Failed("this condition is not known here")

    def pip(arguments):
        if arguments[:1] in (["--version"], ["-V"]):
            import micropip

            say(f"pip {micropip.__version__}\n")
            return 0
        if arguments[:1] in (["list"], ["freeze"]):
            import micropip

            for package, version in sorted(micropip.list().items()):
                say(f"{package}=={version}\n" if arguments[0] == "freeze" else f"{package} {version}\n")
            return 0
        if arguments[:1] != ["install"]:
            raise Failed("only install, list and freeze are there")
        errors = io.StringIO()
        try:
            with contextlib.redirect_stderr(errors):
                get_ipython().run_line_magic("pip", shlex.join(arguments))
        except Exception as error:
            # What it says of its arguments.
            raise Failed(str(error).removeprefix("%pip ")) from None
        finally:
            sys.stderr.write(errors.getvalue())
        return 1 if errors.getvalue() else 0

    def python(arguments):
        arguments = [argument for argument in arguments] or ["-"]
        flags = {"-u", "-B", "-s", "-S", "-E", "-I", "-q", "-O", "-OO"}
        while arguments and arguments[0] in flags:
            arguments.pop(0)
        if not arguments:
            arguments = ["-"]
        first, *rest = arguments
        if first in ("--version", "-V", "-VV"):
            say(f"Python {sys.version.split()[0]}\n")
            return 0
        if first == "-c":
            if not rest:
                raise Failed("argument expected for the -c option")
            return as_main(rest[0], "<string>", ["-c", *rest[1:]])
        if first == "-m":
            if not rest:
                raise Failed("argument expected for the -m option")
            if rest[0] in ("pip", "pip3"):
                return pip(rest[1:])
            return module_as_main(rest[0], rest)
        if first == "-":
            return as_main(sys.stdin.read(), "<stdin>", ["-", *rest])
        if first.startswith("-"):
            raise Failed(f"option {first} is not known here")
        try:
            with open(first, "rb") as file:
                source = file.read()
        except OSError as error:
            complain(f"python: can't open file '{os.path.abspath(first)}': [Errno {error.errno}] {reason(error)}")
            return 2
        return as_main(source, first, [first, *rest], os.path.dirname(os.path.abspath(first)))

    @contextlib.contextmanager
    def as_program(arguments, folder):
        saved = sys.argv, sys.path[:], sys.modules.get("__main__"), os.getcwd()
        main = types.ModuleType("__main__")
        main.__builtins__ = __builtins__
        sys.argv, sys.modules["__main__"] = arguments, main
        sys.path.insert(0, folder)
        before = set(sys.modules)
        try:
            yield main
        finally:
            sys.argv, sys.path[:] = saved[0], saved[1]
            sys.modules["__main__"] = saved[2]
            # Another process would begin without them: files may have changed by then.
            for module in set(sys.modules) - before:
                origin = getattr(sys.modules[module], "__file__", None) or ""
                if origin.startswith((folder + "/", "/home/", "/tmp/")):
                    del sys.modules[module]

    def ended(run):
        try:
            run()
        except SystemExit as end:
            if end.code is None:
                return 0
            if isinstance(end.code, int):
                return end.code & 255
            complain(str(end.code))
            return 1
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            frames = error.__traceback__
            while frames is not None and frames.tb_frame.f_code in (ended.__code__, run.__code__):
                frames = frames.tb_next
            traceback.print_exception(error.with_traceback(frames))
            return 1
        return 0

    def as_main(source, shown, arguments, folder=""):
        with as_program(arguments, folder or os.getcwd()) as main:
            main.__dict__["__file__"] = shown
            return ended(lambda: exec(compile(source, shown, "exec"), main.__dict__))

    def module_as_main(module, arguments):
        import runpy

        with as_program(arguments, os.getcwd()):
            return ended(lambda: runpy.run_module(module, run_name="__main__", alter_sys=True))

    COMMANDS = {
        "python": python, "python3": python, "pip": pip, "pip3": pip, "ls": ls, "cat": cat, "mkdir": mkdir, "rm": rm,
        "rmdir": rmdir, "touch": touch, "mv": mv, "cp": cp, "echo": echo, "printf": printf, "pwd": lambda _: say(os.getcwd() + "\n"),
        "env": env, "printenv": env, "cd": cd, "export": export, "sleep": sleep, "which": which, "whoami": whoami,
        "head": lambda arguments: cut_lines(arguments, False), "tail": lambda arguments: cut_lines(arguments, True), "wc": wc,
        "test": test_file, "[": test_file, "true": lambda _: 0, ":": lambda _: 0, "false": lambda _: 1,
    }  # fmt: skip

    KEYWORDS = {"for", "while", "until", "if", "case", "function", "select", "{", "[[", "exec", "eval", "source", "."}

    def expand(word):
        """One word of a command line: quotes, variables, `~`, patterns of file names."""
        text, quoted, patterns = [], False, False
        position = 0
        state = None
        while position < len(word):
            letter = word[position]
            position += 1
            if state == "'":
                if letter == "'":
                    state = None
                else:
                    text.append(letter)
            elif letter == "'" and state is None:
                state, quoted = "'", True
            elif letter == '"':
                state, quoted = (None if state == '"' else '"'), True
            elif letter == "\\" and position < len(word):
                following = word[position]
                position += 1
                text.append(following if state is None or following in '"\\$`' else letter + following)
            elif letter == "`" or word.startswith("$(", position - 1):
                raise Refused("commands in a command line")
            elif letter == "$" and position < len(word) and (word[position].isalpha() or word[position] in "_{?"):
                if word[position] == "{":
                    end = word.find("}", position)
                    variable, position = word[position + 1 : end], end + 1
                    if not variable.isidentifier():
                        raise Refused("this form of a variable")
                elif word[position] == "?":
                    variable, position = "?", position + 1
                else:
                    start = position
                    while position < len(word) and (word[position].isalnum() or word[position] == "_"):
                        position += 1
                    variable = word[start:position]
                text.append(str(last) if variable == "?" else os.environ.get(variable, ""))
            else:
                if state is None and letter in "*?[":
                    patterns = True
                text.append(letter)
        if state is not None:
            raise Refused("a quote that is not closed")
        expanded = "".join(text)
        if not quoted and (expanded == "~" or expanded.startswith("~/")):
            expanded = "/home/user" + expanded[1:]
        if patterns and not quoted:
            folder, _, pattern = expanded.rpartition("/")
            try:
                entries = sorted(os.listdir(folder or ("/" if expanded.startswith("/") else ".")))
            except OSError:
                entries = []
            found = [entry for entry in entries if fnmatch.fnmatchcase(entry, pattern) and not entry.startswith(".")]
            if found:
                return [f"{folder}/{entry}" if "/" in expanded else entry for entry in found]
        return [expanded]

    def words_of(line):
        # Quotes are kept in words: what is in them is taken as it is when a word is expanded.
        words, word, position, state = [], "", 0, None
        while position < len(line):
            letter = line[position]
            if state:
                word += letter
                if letter == "\\" and state == '"' and position + 1 < len(line):
                    position += 1
                    word += line[position]
                elif letter == state:
                    state = None
            elif letter in "'\"":
                state = letter
                word += letter
            elif letter == "\\" and position + 1 < len(line):
                position += 1
                if line[position] != "\n":
                    word += letter + line[position]
            elif letter in " \t\r":
                if word:
                    words.append(("word", word))
                word = ""
            elif letter in "|&;<>()\n":
                if letter in "<>" and word.isdigit():
                    operator, word = word, ""
                else:
                    operator = ""
                if word:
                    words.append(("word", word))
                word = ""
                operator += letter
                while position + 1 < len(line) and operator[-1] + line[position + 1] in ("&&", "||", ">>", "<<", ">&", "&>"):
                    position += 1
                    operator += line[position]
                words.append(("operator", operator))
            elif letter == "#" and not word:
                while position < len(line) and line[position] != "\n":
                    position += 1
                continue
            else:
                word += letter
            position += 1
        if state:
            raise Refused("a quote that is not closed")
        if word:
            words.append(("word", word))
        return words

    def simple(tokens):
        """One command with its redirections. Nothing of it is done if it is refused."""
        nonlocal name, last
        arguments, redirections, position = [], [], 0
        assignments = []
        while position < len(tokens):
            kind, text = tokens[position]
            position += 1
            if kind == "word":
                key, equals, value = text.partition("=")
                if not arguments and equals and key.isidentifier():
                    assignments.append((key, "".join(expand(value))))
                else:
                    arguments += expand(text)
                continue
            if text in (">", ">>", "1>", "1>>", "2>", "2>>", "<", "&>"):
                if position >= len(tokens) or tokens[position][0] != "word":
                    raise Refused(f"'{text}' without a file")
                redirections.append((text, expand(tokens[position][1])[0]))
                position += 1
            elif text in ("2>&", ">&", "1>&") and position < len(tokens):
                redirections.append((text, tokens[position][1]))
                position += 1
            else:
                raise Refused(f"'{text}'")
        with contextlib.ExitStack() as stack:
            for operator, target in redirections:
                if operator == "2>&" and target == "1":
                    stack.enter_context(contextlib.redirect_stderr(sys.stdout))
                    continue
                if operator in (">&", "1>&") and target == "2":
                    stack.enter_context(contextlib.redirect_stdout(sys.stderr))
                    continue
                if target == "/dev/null":
                    file = io.StringIO()
                else:
                    try:
                        file = stack.enter_context(
                            open(target, "r" if operator == "<" else "a" if operator.endswith(">>") else "w", encoding="utf-8")
                        )
                    except OSError as error:
                        complain(f"bash: {target}: {reason(error)}")
                        return 1
                if operator == "<":
                    stack.callback(setattr, sys, "stdin", sys.stdin)
                    sys.stdin = file
                    continue
                if operator.startswith("2") or operator == "&>":
                    stack.enter_context(contextlib.redirect_stderr(file))
                if not operator.startswith("2"):
                    stack.enter_context(contextlib.redirect_stdout(file))
            if not arguments:
                os.environ.update(assignments)
                return 0
            saved = {key: os.environ.get(key) for key, _ in assignments}
            os.environ.update(assignments)
            # There is one user, who may do all that there is.
            while arguments[0] == "sudo" and len(arguments) > 1:
                arguments = arguments[1:]
            name, rest = os.path.basename(arguments[0]), arguments[1:]
            if name not in COMMANDS and arguments[0].endswith(".py"):
                name, rest = "python", arguments
            try:
                if name not in COMMANDS:
                    complain(
                        f"bash: line 1: {arguments[0]}: command not found. This sandbox is a Python without a shell: there are "
                        + ", ".join(sorted(command for command in COMMANDS if command.isalnum()))
                        + "."
                    )
                    return 127
                return COMMANDS[name](rest) or 0
            except Failed as error:
                complain(f"{name}: {error}")
                return 1
            except (OSError, ValueError, TypeError) as error:
                complain(f"{name}: {error}")
                return 1
            finally:
                for key, value in saved.items():
                    if value is None:
                        os.environ.pop(key, None)
                    else:
                        os.environ[key] = value

    def pipeline(tokens):
        parts = [[]]
        for token in tokens:
            if token == ("operator", "|"):
                parts.append([])
            else:
                parts[-1].append(token)
        if not all(parts):
            raise Refused("a pipe without a command")
        status, standard = 0, sys.stdin
        try:
            for index, part in enumerate(parts):
                if index < len(parts) - 1:
                    with contextlib.redirect_stdout(io.StringIO()) as out:
                        status = simple(part)
                    sys.stdin = io.StringIO(out.getvalue())
                else:
                    status = simple(part)
        finally:
            sys.stdin = standard
        return status

    def lines(tokens):
        nonlocal last
        before, part = ";", []
        for (_, text), (kind, previous) in zip(tokens, [("operator", ";"), *tokens]):
            if kind == "operator" and previous not in "<>" and text in KEYWORDS:
                raise Refused(f"'{text}'")
        for kind, text in [*tokens, ("operator", ";")]:
            if kind == "operator" and text in ("&&", "||", ";", "\n"):
                if part and (before in (";", "\n") or (before == "&&") == (last == 0)):
                    last = pipeline(part)
                if part or text in ("&&", "||"):
                    before = text
                part = []
            else:
                part.append((kind, text))
        return last

    name, last = "bash", 0
    saved_folder, saved_variables = os.getcwd(), dict(os.environ)
    standard_input = sys.stdin
    try:
        try:
            os.chdir(cwd)
        except OSError as error:
            complain(f"bash: {cwd}: {reason(error)}")
            return 1
        sys.stdin = io.StringIO(stdin or "")
        try:
            return lines(words_of(command))
        except Refused as refused:
            complain(f"bash: {refused} is not supported: this sandbox is a Python without a shell.")
            return 2
    finally:
        sys.stdin = standard_input
        os.chdir(saved_folder)
        os.environ.clear()
        os.environ.update(saved_variables)
        sys.stdout.flush()


_run_command
