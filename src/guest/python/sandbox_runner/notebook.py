"""Reads code as notebooks and models write it: indented as a whole, in ``` fences, with prompts, magics and shell lines.

Only code that Python refuses comes here, and code with prompts that it takes for annotations, so other code pays nothing. Lines keep their numbers and what is cut from one is
remembered, so that every position in the tree, and in a SyntaxError, is one in the code as it was sent.
"""

import ast
import io
import re

_FLAGS = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT

_WORTH_READING = re.compile(
    r"""\A\ufeff | \A(?:[ \t]*(?:\#.*)?\n)*[ \t]+\S | ^[ \t]*(?:```|~~~|>>>|In[ ]\[|[%!?]|(?:python3?[ ]-m[ ])?pip3?[ ]install\b)
    | \?[ \t]*$ | =[ \t]*[%!][^=]""",
    re.X | re.M,
)
_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})[ \t]*(.*?)[ \t]*$")
_PYTHON = {"", "python", "py", "python3", "py3", "ipython", "ipython3", "pycon", "jupyter", "notebook", "tool_code"}
_TEXT = {"text", "txt", "plaintext", "plain", "output"}
_PROMPT = re.compile(r">>>(?: |$)|In \[(?:\d*|[* ])\]: ?")
_CONTINUATION_PROMPT = re.compile(r"\.\.\.(?: |$)|[ \t]*\.{3,}:(?: |$)")
_CELL_MAGIC = re.compile(r"%%([A-Za-z_]\w*)[ \t]*(.*)$")
_MAGIC = re.compile(r"(%)([A-Za-z_]\w*)[ \t]*(.*)$|(!)!?[ \t]*(.*)$")
_PIP = re.compile(r"(?:python3?[ ]+-m[ ]+)?pip3?[ ]+(install[ ].*)$")
_ASSIGNMENT = re.compile(r"([^\W\d][\w.,\[\] \t'\"]*=[ \t]*)(?=[%!][^=])")
_HELP = re.compile(r"(\?{1,2})[ \t]*([\w.%\[\]'\"]+)[ \t]*;?$|([\w.%\[\]'\"]+)(\?{1,2})[ \t]*;?$")
_PIECE = re.compile(r"""\\.|#|'{3}|"{3}|['"]|[\[({]|[\])}]""", re.S)
_TIMEIT_OPTIONS = re.compile(r"(?:-(?:[nr][ ]*\d+|[oqtcp](?:[ ]*\d+)?)[ \t]+)*")
_PLACEHOLDER = "__magic_%d__"


def has_prompts(tree):
    """Whether code that Python accepts begins with a prompt: `In [1]: x` is an annotation of `In[1]`."""
    first = tree.body[0]
    if type(first) is not ast.AnnAssign or type(first.target) is not ast.Subscript:
        return False
    name, number = first.target.value, first.target.slice
    if type(name) is not ast.Name or name.id != "In" or type(number) is not ast.Constant:
        return False
    # An annotation that is meant as one has no space before the bracket.
    return type(number.value) is int and number.col_offset == name.end_col_offset + 2


def parse(code, filename, error=None):
    """Parse code that `compile` refused with `error`, or that has prompts.

    Returns the text that was parsed in its place, line by line the same, and its tree, whose positions are in `code`.
    Raises SyntaxError, `error` itself where nothing in the code is a notebook's.
    """
    if not _WORTH_READING.search(code):
        raise error
    lines = [_Line(text.removesuffix("\n")) for text in io.StringIO(code, newline=None).readlines()]
    reader = _Reader(filename, lines)
    if lines[0].text.startswith("\ufeff"):
        lines[0].cut(1)
    reader.open_fences()
    _dedent(lines)
    _strip_prompts(lines)
    _dedent(lines)
    tree = reader.read_cell()
    if not reader.magics and all(line.removed == "" for line in lines):
        raise error
    return "\n".join(line.text for line in lines), tree


class _Line:
    """A line as it was sent, and what of it is read."""

    __slots__ = ("removed", "sent", "text")

    def __init__(self, sent, cut=0):
        self.sent = sent
        self.removed = sent[:cut]
        self.text = sent[cut:]

    def cut(self, count):
        self.removed += self.text[:count]
        self.text = self.text[count:]

    def blank(self):
        self.cut(len(self.text))


class Scanner:
    """Whether a statement begins where the next line does: not in a string, not in brackets, not after a backslash."""

    def __init__(self):
        self._quote = None
        self._depth = 0
        self._continued = False

    @property
    def is_at_start(self):
        return self._quote is None and self._depth == 0 and not self._continued

    @property
    def is_in_string(self):
        return self._quote is not None

    def feed(self, text):
        comment = False
        for match in _PIECE.finditer(text):
            piece = match[0]
            if self._quote is not None:
                if piece == self._quote or (len(self._quote) == 1 and piece == self._quote * 3):
                    self._quote = None
            elif piece == "#":
                comment = True
                break
            elif piece in "([{":
                self._depth += 1
            elif piece in ")]}":
                self._depth = max(0, self._depth - 1)
            elif piece[0] != "\\":
                self._quote = piece
        backslashes = 0 if comment else len(text) - len(text.rstrip("\\"))
        self._continued = backslashes % 2 == 1
        if self._quote is not None and len(self._quote) == 1 and not self._continued:
            self._quote = None


class _Reader:
    def __init__(self, filename, lines):
        self._filename = filename
        self._lines = lines
        self.magics = {}

    def refuse(self, index, message):
        line = self._lines[index].sent
        raise SyntaxError(message, (self._filename, index + 1, 1, line, index + 1, len(line) + 1)) from None

    def open_fences(self):
        """Keep what is between fences, if there are any; what is around them may be prose, but no code."""
        blocks = []
        outside = []
        block = None
        scanner = None
        for index, line in enumerate(self._lines):
            fence = _FENCE.match(line.text)
            if block is None:
                if fence is None:
                    outside.append(index)
                    continue
                if sum(self._lines[at].text.count(quotes) for at in outside for quotes in ('"""', "'''")) % 2:
                    return  # inside a string
                block = {"mark": fence[1], "info": fence[2], "opened": index, "lines": [], "closed": None}
                scanner = Scanner()
                blocks.append(block)
            elif (
                fence is not None
                and fence[2] == ""
                and fence[1].startswith(block["mark"])
                and not scanner.is_in_string
            ):
                block["closed"] = index
                block = None
            else:
                block["lines"].append(index)
                scanner.feed(line.text)
        if not blocks:
            return
        if len(blocks) == 1 and block is not None and block["info"] == "" and not any(
            self._lines[at].text.strip() for at in block["lines"]
        ):
            # The opening one was left out.
            self._lines[block["opened"]].blank()
            return
        for block in blocks:
            block["tag"] = re.match(r"[{.\s]*(?:code-cell\}?\s*)?([\w+-]*)", block["info"])[1].lower()
        tags = {block["tag"] for block in blocks} - _TEXT
        foreign = next((block for block in blocks if block["tag"] not in _PYTHON | _TEXT), None)
        if foreign is not None:
            self.refuse(
                foreign["opened"], f"the fenced block is marked {foreign['tag']!r}: only Python runs here, send that alone"
            )
        if len(tags) > 1 and "" in tags:
            self.refuse(
                next(block["opened"] for block in blocks if block["tag"] == ""),
                "some fenced blocks are marked as Python and this one is not: send those that are to run alone",
            )
        for index in outside:
            if _is_code(self._lines[index].text):
                self.refuse(index, "there is code outside of the ``` fences: send the code alone, without them")
        for index in outside:
            self._lines[index].blank()
        for block in blocks:
            self._lines[block["opened"]].blank()
            if block["closed"] is not None:
                self._lines[block["closed"]].blank()
            if block["tag"] in _TEXT:
                for index in block["lines"]:
                    self._lines[index].blank()

    def read_cell(self):
        lines = self._lines
        first = next((index for index, line in enumerate(lines) if line.text.strip()), None)
        magic = None if first is None else _CELL_MAGIC.match(lines[first].text)
        if magic is None:
            return self._read(lines, 0)
        name, arguments = magic.groups()
        body = lines[first + 1 :]
        if name in ("time", "timeit", "capture"):
            argument_line = _Line(lines[first].sent, len(lines[first].removed) + magic.start(2))
            lines[first].blank()
            self.magics[name] = None
            if name == "timeit":
                options = _TIMEIT_OPTIONS.match(f"{arguments} ")[0]
                argument_line.cut(len(options))
                setup = self._read([argument_line], first).body
                statements = self._timeit(options, self._read(body, first + 1).body, setup, first)
            else:
                # As %%time f() is written, too.
                extra = self._read([argument_line], first).body if name == "time" else []
                inner = [*extra, *self._read(body, first + 1).body]
                statements = self._time(inner) if name == "time" else self._capture(arguments, inner, first)
        else:
            self.magics[name] = None
            text = "\n".join(line.text for line in body)
            for line in lines:
                line.blank()
            call = f"get_ipython().run_cell_magic({name!r}, {arguments!r}, {text + '\n'!r})"
            statements = self._made(call, first)
        return ast.Module(statements, [])

    def _read(self, lines, base):
        """The tree of some lines, whose first is number `base`, with all magics in it."""
        own = {}
        scanner = Scanner()
        index = 0
        while index < len(lines):
            line = lines[index]
            found = self._find_magic(line) if scanner.is_at_start else None
            if found is None and scanner.is_at_start and (cell := _CELL_MAGIC.match(line.text.lstrip())):
                self.refuse(base + index, f"%%{cell[1]} is for the whole of the code: it has to be its first line")
            if found is None:
                scanner.feed(line.text)
                index += 1
                continue
            start, make, is_python = found
            taken = [_Line(line.sent, len(line.removed) + start)]
            inner = Scanner()
            inner.feed(line.text[start:])
            continues = (lambda text: not inner.is_at_start) if is_python else (lambda text: text.endswith("\\"))
            while continues(taken[-1].text) and index + len(taken) < len(lines):
                following = lines[index + len(taken)]
                taken.append(_Line(following.sent, len(following.removed)))
                inner.feed(following.text)
            name = _PLACEHOLDER % len(self.magics)
            self.magics[name] = own[name] = (make, taken, base + index)
            line.text = line.text[:start] + name
            for following in lines[index + 1 : index + len(taken)]:
                following.blank()
            index += len(taken)
        tree = self._compile(lines, base)
        return _Expansion(own, self).visit(tree) if own else tree

    def _compile(self, lines, base):
        source = "\n".join(line.text for line in lines)
        try:
            tree = compile(source, self._filename, "exec", _FLAGS, dont_inherit=True)
        except SyntaxError as error:
            raise self._located(error, lines, base) from None
        for node in ast.walk(tree):
            if hasattr(node, "lineno"):
                node.col_offset += _removed_bytes(lines, node.lineno)
                node.end_col_offset += _removed_bytes(lines, node.end_lineno)
                node.lineno += base
                node.end_lineno += base
        return tree

    def _located(self, error, lines, base):
        if error.filename != self._filename or error.lineno is None:
            return error
        if 0 < error.lineno <= len(lines):
            line = lines[error.lineno - 1]
            if error.offset:
                error.offset += len(line.removed)
            if error.end_offset and error.end_lineno is not None and 0 < error.end_lineno <= len(lines):
                error.end_offset += len(lines[error.end_lineno - 1].removed)
            error.text = line.sent + "\n"
        error.lineno += base
        if error.end_lineno is not None:
            error.end_lineno += base
        return error

    def _find_magic(self, line):
        """Where a magic begins in a line, what makes statements of it, and whether it goes on as Python does."""
        text = line.text
        start = len(text) - len(text.lstrip(" \t"))
        rest = text[start:]
        if match := _ASSIGNMENT.match(rest):
            start += match.end()
            rest = text[start:]
        if match := _HELP.match(rest):
            asked = (match[2] or match[3]) + (match[1] or match[4])
            return start, lambda _taken, at: self._made(f"get_ipython().run_line_magic('pinfo', {asked!r})", at), False
        if match := _MAGIC.match(rest):
            name = match[2]
            if name in ("time", "timeit"):
                return start, self._make_time if name == "time" else self._make_timeit, True
            return start, self._make_line_magic, False
        if _PIP.match(rest):
            return start, self._make_line_magic, False
        return None

    def _make_line_magic(self, taken, at):
        text = "".join(line.text.removesuffix("\\") for line in taken)
        if match := _PIP.match(text):
            return self._made(f"get_ipython().run_line_magic('pip', {match[1]!r})", at)
        match = _MAGIC.match(text)
        if match[4]:
            return self._made(f"get_ipython().system({match[5]!r})", at)
        return self._made(f"get_ipython().run_line_magic({match[2]!r}, {match[3]!r})", at)

    def _make_time(self, taken, at):
        taken[0].cut(_MAGIC.match(taken[0].text).start(3))
        return self._time(self._read(taken, at).body)

    def _make_timeit(self, taken, at):
        taken[0].cut(_MAGIC.match(taken[0].text).start(3))
        options = _TIMEIT_OPTIONS.match(f"{taken[0].text} ")[0]
        taken[0].cut(len(options))
        return self._timeit(options, self._read(taken, at).body, [], at)

    def _time(self, body):
        """`body` between two looks at the clock; its value, if it ends in an expression, is that of the whole."""
        at = body[0].lineno - 1 if body else 0
        if len(body) == 1 and isinstance(body[0], ast.Expr):
            return self._filled("get_ipython().time(get_ipython().clock(), VALUE)", body[0].value, at)
        begin = self._made("get_ipython().begin_time()", at)
        if body and isinstance(body[-1], ast.Expr):
            return [*begin, *body[:-1], *self._filled("get_ipython().end_time(VALUE)", body[-1].value, at)]
        return [*begin, *body, *self._made("get_ipython().end_time(None)", at)]

    def _timeit(self, options, body, setup, at):
        (function,) = self._made(
            "def __timeit__(_times, _timer):\n pass\n _start = _timer()\n for _ in _times: pass\n return _timer() - _start", at
        )
        function.body[0:1] = setup
        function.body[-2].body = body or function.body[-2].body
        return [function, *self._made(f"get_ipython().timeit(__timeit__, {options!r})", at)]

    def _capture(self, arguments, body, at):
        (block,) = self._made(f"with get_ipython().capture({arguments!r}): pass", at)
        block.body = body or block.body
        return [block]

    def _made(self, source, at):
        """Statements of ours, at the beginning of a line of the code."""
        tree = compile(source, self._filename, "exec", _FLAGS, dont_inherit=True)
        line = self._lines[at].sent
        start = len(line) - len(line.lstrip())
        for node in ast.walk(tree):
            if hasattr(node, "lineno"):
                node.lineno = node.end_lineno = at + 1
                node.col_offset, node.end_col_offset = start, len(line.encode("utf-8", "replace"))
        return tree.body

    def _filled(self, source, value, at):
        (statement,) = self._made(source, at)
        statement.value.args[-1] = value
        return [statement]


class _Expansion(ast.NodeTransformer):
    """Puts what magics stand for in their places."""

    def __init__(self, magics, reader):
        self._magics = magics
        self._reader = reader

    def visit_Expr(self, node):
        if isinstance(node.value, ast.Name) and node.value.id in self._magics:
            make, taken, at = self._magics[node.value.id]
            # `%time` of nothing.
            return make(taken, at) or self._reader._made("None", at)
        return self.generic_visit(node)

    def visit_Assign(self, node):
        if isinstance(node.value, ast.Name) and node.value.id in self._magics:
            make, taken, at = self._magics[node.value.id]
            *before, last = make(taken, at)
            if isinstance(last, ast.Expr):
                node.value = last.value
                return [*before, node]
        return self.generic_visit(node)

    def visit_Name(self, node):
        if node.id not in self._magics:
            return node
        make, taken, at = self._magics[node.id]
        statements = make(taken, at)
        if len(statements) != 1 or not isinstance(statements[0], ast.Expr):
            self._reader.refuse(at, "this magic has no value that could be assigned")
        return statements[0].value


def _removed_bytes(lines, number):
    return len(lines[number - 1].removed.encode("utf-8", "replace")) if number <= len(lines) else 0


def _dedent(lines):
    """Cut the indentation of the first line of code wherever it is, as a notebook does."""
    first = next((line.text for line in lines if line.text.strip() and not line.text.lstrip().startswith("#")), "")
    margin = first[: len(first) - len(first.lstrip(" \t"))]
    if margin:
        for line in lines:
            if line.text.startswith(margin):
                line.cut(len(margin))


def _strip_prompts(lines):
    """Take away prompts, and the output below them."""
    first = next((line.text for line in lines if line.text.strip() and not line.text.startswith("#")), "")
    if not _PROMPT.match(first):
        return
    is_output = False
    for line in lines:
        if match := _PROMPT.match(line.text) or _CONTINUATION_PROMPT.match(line.text):
            line.cut(match.end())
            is_output = True
        elif not line.text.strip():
            is_output = False
        elif is_output or re.match(r"Out\[\d*\]:", line.text):
            line.blank()
            is_output = True


def _is_code(text):
    """Whether a line outside of all fences does something. A word, or a label with a colon, is Python too."""
    try:
        statements = ast.parse(text.strip()).body
    except (SyntaxError, ValueError):
        return False
    for statement in statements:
        if isinstance(statement, ast.Expr) and not isinstance(statement.value, (ast.Call, ast.Await)):
            continue
        if isinstance(statement, ast.AnnAssign) and statement.value is None:
            continue
        return True
    return False
