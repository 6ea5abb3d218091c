"""Functions that the caller's client answers while code runs; and `input()`, which asks the same client.

The host's end is ``tools/pending-calls.ts``: a call is started, and its answer waited for, so that any number of them can be open at a
time. A function that blocks waits inside one call of the device; a coroutine is woken by the event loop.
"""

import builtins
import sys
import time
from asyncio import get_running_loop
from inspect import Parameter, Signature

# By name, so that code that patches `json` patches its own only.
from json import dumps, loads
from types import ModuleType

from . import device, network, restrictions

_waiting = {}
"""Call → future, of the calls that coroutines wait for."""
_answers = {}
"""Call → answer, of those that came with another's."""
_offered = []
"""What the execution was given, as functions that take it away."""
_tools = {}
"""Name → tool, by the client's name and by Python's."""
is_checking = False
"""Whether calls of tools are compared with their signatures before the code runs."""
_interactive = False


class ToolError(Exception):
    """A tool has failed: `str(error)` is what its client says. `name`: of the tool; `data`: what the client has sent besides."""

    __module__ = "tools"

    def __init__(self, message="", name=None, data=None):
        super().__init__(message)
        self.name = name
        self.data = data


class ToolTimeout(ToolError):
    """A tool was not answered in time."""

    __module__ = "tools"


def is_offering():
    """Whether the session's last execution was given something, which has to be taken away."""
    return bool(_offered)


def begin(offer, main):
    """Called when an execution begins: `offer` is the `ToolOffer` of messages.ts, or None. `main`: global variables."""
    global _interactive, is_checking
    while _offered:
        _offered.pop()()
    _tools.clear()
    _answers.clear()
    _interactive = is_checking = False
    if offer is None:
        return
    for signature in offer["tools"]:
        tool = _Tool(signature)
        _tools[tool.name] = tool
    # After the names in Python: where one tool's is another's to the client, the client's counts.
    _tools.update({tool.tool: tool for tool in [*_tools.values()]})
    namespaces = {}
    for tool in {id(tool): tool for tool in _tools.values()}.values():
        function = tool.function(offer["mode"] == "async")
        namespace, _, name = tool.name.rpartition(".")
        if namespace:
            setattr(_namespace(namespaces, namespace), name, function)
        else:
            _give(main, name, function)
    for name, module in namespaces.items():
        _give(sys.modules, name, module)
        if "." not in name:
            _give(main, name, module)
    _give(sys.modules, "tools", _module())
    is_checking = offer["check"]
    if offer["interactive"]:
        _interactive = True
        _give(builtins.__dict__, "input", _input)


def _namespace(namespaces, name):
    """The module of this name, `mcp.github`, which is an attribute of the one above it."""
    module = namespaces.get(name)
    if module is None:
        module = namespaces[name] = ModuleType(name, "Functions that the server calls for this execution.")
        above, _, own = name.rpartition(".")
        if above:
            setattr(_namespace(namespaces, above), own, module)
    return module


def check(tree, last, main):
    """Raise SyntaxError if a call of a tool in the program cannot work."""
    from . import sources, tool_check

    signatures = {name: tool.signature for name, tool in _tools.items()}
    tool_check.check(tree, last, signatures, main, sources.name, sources.lines())


def _give(names, name, value):
    before = names.get(name, names)
    names[name] = value

    def take():
        # What code has put in its place stays.
        if names.get(name) is not value:
            return
        if before is names:
            del names[name]
        else:
            names[name] = before

    _offered.append(take)


class _Annotation:
    """Shown in a signature as the text that it is."""

    def __init__(self, text):
        self._text = text

    def __repr__(self):
        return self._text


class _Tool:
    def __init__(self, described):
        self.name = described["name"]
        self.tool = described["tool"]
        self._described = described
        self._keys = {parameter["name"]: parameter["key"] for parameter in described["parameters"]}
        self._names = {key: name for name, key in self._keys.items()}
        self._omitted = {
            parameter["name"]
            for parameter in described["parameters"]
            if not (parameter["required"] or parameter["nullable"] or "default" in parameter)
        }
        parameters = []
        for parameter in described["parameters"]:
            default = Parameter.empty if parameter["required"] else parameter.get("default")
            annotation = _Annotation(parameter["annotation"])
            parameters.append(
                Parameter(parameter["name"], Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)
            )
        self._more = None
        if described["takesMore"]:
            self._more = "arguments"
            while self._more in self._keys:
                self._more += "_"
            parameters.append(Parameter(self._more, Parameter.VAR_KEYWORD))
        self.signature = Signature(parameters, return_annotation=_Annotation(described["returns"]))

    def function(self, is_async):
        if is_async:

            async def call(*args, **kwargs):
                return await _wait_async(self.start(args, kwargs), self.name)
        else:

            def call(*args, **kwargs):
                return _wait(self.start(args, kwargs), self.name)

        namespace, _, name = self.name.rpartition(".")
        call.__name__ = call.__qualname__ = name
        call.__module__ = namespace or "tools"
        call.__doc__ = self.documentation()
        call.__signature__ = self.signature
        return call

    def documentation(self):
        described = self._described
        lines = [described["description"]] if described["description"] else []
        documented = [parameter for parameter in described["parameters"] if parameter["description"]]
        if documented:
            lines += ["", "Arguments:"]
            lines += [f"    {parameter['name']}: {parameter['description']}" for parameter in documented]
        return "\n".join(lines) or None

    def start(self, args, kwargs):
        named = {self._names.get(key, key): value for key, value in kwargs.items()}
        try:
            bound = self.signature.bind(*args, **named)
        except TypeError as error:
            raise TypeError(f"{self.name}() {error}") from None
        arguments = {}
        for name, value in bound.arguments.items():
            if name == self._more:
                arguments.update(value)
            elif value is not None or name not in self._omitted:
                arguments[self._keys[name]] = value
        return _start({"tool": self.tool, "input": _to_json(arguments)}, self.name)


def _to_json(arguments):
    text = dumps(arguments, allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_plain)
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate, which UTF-8 does not have
        text = dumps(arguments, allow_nan=False, separators=(",", ":"), default=_plain)
    return text


def _plain(value):
    """Numbers and arrays of numpy, and what is like them."""
    to_list = getattr(value, "tolist", None)
    if callable(to_list) and not isinstance(value, type):
        return to_list()
    raise TypeError(f"a tool takes JSON, and {type(value).__name__} is none")


def _start(argument, name):
    try:
        started = device.ask("tool-start", argument)
    except OSError as error:
        raise ToolError(str(error), name) from None
    if isinstance(started, (int, float)):
        return started
    message = started["message"]
    if started["kind"] == "type":
        raise TypeError(f"{name}() {message}")
    raise (ToolTimeout if started["kind"] == "timeout" else ToolError)(message, name)


def _wait(call, name):
    while call not in _answers:
        _receive([call], None)
    return _value(_answers.pop(call), name)


async def _wait_async(call, name):
    if call not in _answers:
        future = _waiting[call] = get_running_loop().create_future()
        try:
            await future
        finally:
            _waiting.pop(call, None)
    return _value(_answers.pop(call), name)


def are_awaited():
    """Whether the event loop has to wake up for an answer."""
    return bool(_waiting)


def wake_waiting(timeout):
    """Wait up to `timeout` seconds (None: without limit) for an answer, or the response to a request, and wake the tasks that await it."""
    begun = _receive(list(_waiting), timeout, network.awaited())
    network.wake(begun)
    for call in [call for call in _answers if call in _waiting]:
        future = _waiting.pop(call)
        if not future.done():
            future.set_result(None)


def _receive(calls, timeout, requests=()):
    """Keep the answers that have come. Returns which requests have begun."""
    start = time.monotonic()
    milliseconds = None if timeout is None else max(timeout * 1000, 0)
    try:
        value, body = device.ask_for_bytes(
            "tool-wait", {"ids": calls, "requests": list(requests), "timeoutMs": milliseconds}
        )
    finally:
        restrictions.count_as_slept(time.monotonic() - start)
    position = 0
    for head in value["calls"]:
        end = position + head["bytes"]
        _answers[head["id"]] = (head["kind"], body[position:end])
        position = end
    return value["requests"]


def _value(answer, name):
    kind, text = answer
    try:
        value = loads(text)
    except ValueError as error:  # a number of more digits than Python reads
        raise ToolError(f"the answer cannot be read: {error}", name) from None
    if kind == "result":
        return value
    raise (ToolTimeout if kind == "timeout" else ToolError)(value["message"], name, value.get("data"))


def _module():
    module = ModuleType("tools", "Functions that the client of this execution answers.")

    def find(name):
        tool = _tools.get(name)
        if tool is None:
            raise ToolError(f"there is no tool {name!r}; tools.list() has those that there are", name)
        return tool

    def call(name, /, **arguments):
        """Call a tool, and block until it is answered."""
        tool = find(name)
        return _wait(tool.start((), arguments), tool.name)

    async def acall(name, /, **arguments):
        """Call a tool, and await its answer."""
        tool = find(name)
        return await _wait_async(tool.start((), arguments), tool.name)

    def list():
        """The tools, each with its name, signature and description."""
        different = {id(tool): tool for tool in _tools.values()}.values()
        return [
            {"name": tool.name, "signature": f"{tool.name}{tool.signature}", "description": tool.documentation() or ""}
            for tool in different
        ]

    for function in (call, acall, list):
        function.__module__ = "tools"
        function.__qualname__ = function.__name__
        setattr(module, function.__name__, function)
    module.ToolError = ToolError
    module.ToolTimeout = ToolTimeout
    module.__all__ = ["call", "acall", "list", "ToolError", "ToolTimeout"]
    return module


def _input(prompt="", /):
    """Read a line from the user of this execution's client. Raises EOFError where there is none."""
    return _ask_user(prompt, False, "input")


_input.__name__ = _input.__qualname__ = "input"
_input.__module__ = "builtins"


def _ask_user(prompt, is_password, name):
    text = str(prompt)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    try:
        return _wait(_start({"prompt": text[:100_000], "password": is_password}, name), name)
    except ToolTimeout:
        raise
    except ToolError as error:
        raise EOFError(str(error)) from None


def adapt_getpass(module):
    in_terminal = module.getpass

    def getpass(prompt="Password: ", stream=None, *, echo_char=None):
        """Read a password. Where the client asks its user, what is written is not shown."""
        if _interactive:
            return _ask_user(prompt, True, "getpass")
        return in_terminal(prompt, stream, echo_char=echo_char)

    getpass.__module__ = "getpass"
    module.getpass = getpass
