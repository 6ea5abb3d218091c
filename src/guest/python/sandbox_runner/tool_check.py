"""Compares the calls of tools in a program with their signatures, before anything of it runs."""

import ast
import builtins
import difflib


class ToolCheckError(SyntaxError):
    """A call that cannot work; its line and column are in the code that was sent."""

    __module__ = "tools"


def check(tree, last, signatures, known, filename, lines):
    """Raise ToolCheckError for the first call that cannot work.

    `tree` and `last` are the program and its last expression, `signatures` maps names of tools to `inspect.Signature`, `known` is what has a value
    before the program runs.
    """
    nodes = [*ast.walk(tree)]
    if last is not None:
        nodes += ast.walk(last)
    bound = _bound(nodes)
    # What such an import binds only running it tells.
    is_open = "*" in bound
    for node in sorted((node for node in nodes if isinstance(node, ast.Call)), key=lambda call: (call.lineno, call.col_offset)):
        problem = _problem(node, signatures, bound, known, is_open)
        if problem is not None:
            position = (filename, node.lineno, node.col_offset + 1, lines[node.lineno - 1] if node.lineno <= len(lines) else "")
            raise ToolCheckError(problem, (*position, node.end_lineno, node.end_col_offset + 1))


def _problem(node, signatures, bound, known, is_open):
    function = node.func
    args, keywords = node.args, node.keywords
    if isinstance(function, ast.Name):
        name = function.id
        if name in bound:
            return None
        if name not in signatures:
            if is_open or name in known or hasattr(builtins, name):
                return None
            close = difflib.get_close_matches(name, signatures, 1)
            return f"there is no function or tool {name!r}" + (f"; is it {close[0]!r}?" if close else "")
    elif (
        isinstance(function, ast.Attribute)
        and function.attr in ("call", "acall")
        and isinstance(function.value, ast.Name)
        and function.value.id == "tools"
        and args
        and isinstance(args[0], ast.Constant)
    ):
        name = args[0].value
        args = args[1:]
        if name not in signatures:
            close = difflib.get_close_matches(str(name), signatures, 1)
            return f"there is no tool {name!r}" + (f"; is it {close[0]!r}?" if close else "")
    else:
        return None
    return _mismatch(name, signatures[name], args, keywords)


def _mismatch(name, signature, args, keywords):
    parameters = signature.parameters
    named = {key.arg: key for key in keywords}
    is_partial = None in named or any(isinstance(value, ast.Starred) for value in args)
    takes_more = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    positional = [parameter for parameter in parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    for key in named:
        if key is not None and key not in parameters and not takes_more:
            close = difflib.get_close_matches(key, parameters, 1)
            return f"{name}() has no argument {key!r}" + (f"; is it {close[0]!r}?" if close else "")
    if is_partial:
        return None
    if len(args) > len(positional):
        return f"{name}() takes {len(positional)} positional arguments, and {len(args)} are given"
    for index, parameter in enumerate(positional):
        given = index < len(args)
        if given and parameter.name in named:
            return f"{name}() gets the argument {parameter.name!r} twice"
        if not given and parameter.name not in named and parameter.default is parameter.empty:
            return f"{name}() needs the argument {parameter.name!r}"
    return None


def _bound(nodes):
    """Names that the program binds anywhere, in whatever scope."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
            names.add(node.name)
        elif isinstance(node, ast.MatchMapping):
            names.add(node.rest)
        elif isinstance(node, (ast.TypeVar, ast.ParamSpec, ast.TypeVarTuple)):
            names.add(node.name)
    return names
