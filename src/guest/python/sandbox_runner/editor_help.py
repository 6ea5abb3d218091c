"""What editors ask while code is written: completion, what a name is, whether the code is whole. Nothing of the code is executed."""

import codeop
import inspect
import io
import re
import sys
import tokenize
import types
import warnings
from ast import PyCF_ALLOW_TOP_LEVEL_AWAIT

from . import completion, notebook, static_values
from .source_scan import Scan

_MAX_CHARACTERS = 100_000
_INDENT = 4
_REST_OF_NAME = re.compile(r"\w*")
_UNSEEN = {tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def answer(question):
    """Answer an `EditorQuestion` of messages.ts."""
    names = static_values.names_in(sys.modules["__main__"].__dict__)
    if question["type"] == "complete":
        return completion.complete(question["code"], question["cursor"], names)
    if question["type"] == "inspect":
        return inspection(question["code"], question["cursor"], question["detail"], names)
    return completeness(question["code"])


# Inspection


def inspection(code, cursor, detail, names):
    """Describe what is at the cursor: `{text}`, or None."""
    end = _REST_OF_NAME.match(code, cursor).end()
    end = len(code[:end].rstrip("?"))
    scan = Scan(code[:end])
    if scan.is_comment:
        return None
    expressions = []
    if scan.string is None and (start := scan.primary_before(end)) < end:
        expressions.append(code[start:end])
    if (call := scan.callee()) is not None:
        expressions.append(code[call[0] : call[1]])
    for expression in expressions:
        value = static_values.evaluate(expression, names, is_definition=True)
        if value is not static_values.UNKNOWN:
            return {"text": _shorten(_description(expression, value, detail))}
    return None


def _description(expression, value, detail):
    """As IPython describes objects, without asking them for their text."""
    lines = []
    signature = static_values.signature_of(value)
    name = expression.rpartition(".")[2]
    if signature is not None:
        label = "Init signature" if static_values.is_class(value) else "Signature"
        lines.append((label, f"{name}{signature}"))
    lines.append(("Type", static_values.qualified_name(static_values.class_of(value))))
    shown = static_values.shown(value)
    if shown is not None:
        lines.append(("String form", shown))
    length = static_values.length(value)
    if length is not None:
        lines.append(("Length", str(length)))
    file = _file_of(value)
    if file is not None:
        lines.append(("File", file))
    text = "\n".join(f"{f'{label}:':<16}{content}" for label, content in lines)
    source = _source_of(value) if detail > 0 else None
    if source is not None:
        return f"{text}\nSource:\n{source}"
    documentation = static_values.documentation(value)
    is_own = static_values.kind_of(value) != "instance"
    return f"{text}\n{'Docstring' if is_own else 'Class docstring'}:\n{documentation or '<no docstring>'}"


def _with_source(value):
    value = static_values.function_behind(value)
    if static_values.is_a(value, property):
        return value.fget
    if static_values.is_a(value, (staticmethod, classmethod)):
        return value.__func__
    if static_values.is_a(value, types.MethodType):
        return value.__func__
    if static_values.is_a(value, (types.FunctionType, types.ModuleType)) or static_values.is_plain_class(value):
        return value
    return None


def _file_of(value):
    value = _with_source(value)
    try:
        return None if value is None else inspect.getfile(value)
    except (TypeError, OSError):
        return None


def _source_of(value):
    value = _with_source(value)
    try:
        return None if value is None else inspect.getsource(value)
    except (TypeError, OSError, SyntaxError, IndentationError):
        return None


def _shorten(text):
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:_MAX_CHARACTERS]}…"


# Whether code is whole


def completeness(code):
    """Whether a prompt should run code or ask for another line, as IPython decides: `{status, indent?}`."""
    ends_with_newline = code.endswith("\n")
    lines = code.splitlines(keepends=True)
    if not code.strip():
        return {"status": "complete"}
    last = next(line for line in reversed(lines) if line.strip()).rstrip("\n\r")
    if last.endswith("\\"):
        return _incomplete(lines)
    if lines[0].startswith("%%"):
        return {"status": "complete"} if not lines[-1].strip() or len(lines) == 1 and "\n" in code else _incomplete(lines)
    magical = _without_magics(lines)
    source = "".join(magical)
    scan = Scan(source)
    if scan.string is not None or scan.brackets:
        # One that can never be right is told at once.
        return _incomplete(lines) if _result(source if source.endswith("\n") else source + "\n") is None else {"status": "invalid"}
    result = _result(source if ends_with_newline else source + "\n")
    if result is False:
        return {"status": "invalid"} if not _is_read_by_notebook(code) else {"status": "complete"}
    block = _open_block(source)
    if block is not None:
        return {"status": "incomplete", "indent": " " * (block + _INDENT)}
    if result is None:
        return _incomplete(lines)
    # A line below a block may belong to it still.
    is_in_block = not ends_with_newline and lines[-1].strip() and lines[-1][0] in " \t"
    return _incomplete(lines) if is_in_block else {"status": "complete"}


def _result(source):
    """True: it compiles; None: it may go on; False: it is wrong."""
    compile_command = codeop.CommandCompiler()
    compile_command.compiler.flags |= PyCF_ALLOW_TOP_LEVEL_AWAIT
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return None if compile_command(source, symbol="exec") is None else True
        except (SyntaxError, OverflowError, ValueError, TypeError, MemoryError, RecursionError):
            return False


def _without_magics(lines):
    """Lines with a name in place of what is a notebook's: magics, `!` and `?`."""
    scanner = notebook.Scanner()
    read = []
    for line in lines:
        text = line.rstrip("\r\n")
        is_magic = scanner.is_at_start and re.match(r"[ \t]*(?:[%!]|\?)|.*\w\?{1,2}[ \t]*$", text)
        if is_magic:
            text = f"{text[: len(text) - len(text.lstrip())]}None"
        scanner.feed(text)
        read.append(text + "\n")
    return read if not lines or lines[-1].endswith(("\n", "\r")) else [*read[:-1], read[-1].removesuffix("\n")]


def _is_read_by_notebook(code):
    """Whether it is indented as a whole, in fences, or has prompts."""
    try:
        notebook.parse(code, "<exec>", SyntaxError())
        return True
    except SyntaxError:
        return False


def _open_block(source):
    """Indentation of the statement at the end whose block has no line yet; None: there is none."""
    first = last = open_at = None
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.NEWLINE:
                open_at = first.start[1] if last is not None and last.string == ":" else None
                first = last = None
            elif token.type not in _UNSEEN:
                first, last, open_at = first or token, token, None
    except (tokenize.TokenError, SyntaxError):
        pass
    return open_at


def _incomplete(lines):
    margin = lines[-1] if lines[-1].strip() else next((line for line in reversed(lines) if line.strip()), "")
    text = margin.rstrip("\r\n")
    return {"status": "incomplete", "indent": text[: len(text) - len(text.lstrip(" \t"))]}
