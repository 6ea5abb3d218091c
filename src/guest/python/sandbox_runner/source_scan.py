"""Where in a piece of source a position is, also in source that is not whole yet: in a string, a comment, in which brackets."""

import re

_PIECE_OF_CODE = re.compile(
    r"""(\#[^\n]*) | (?:(?<!\w)([rRbBuUfFtT]{1,2}))?('''|\"\"\"|'|\") | ([\[({]) | ([\])}])""", re.X
)
_PIECES_OF_STRINGS = {
    (quote, is_formatted): re.compile(
        rf"\\.|{quote}{'|{{|}}|[{]' if is_formatted else ''}{'' if len(quote) == 3 else chr(124) + chr(10)}", re.S
    )
    for quote in ("'", '"', "'''", '"""')
    for is_formatted in (False, True)
}
_IDENTIFIER_END = re.compile(r"[^\W\d]\w*\Z")


class Scan:
    """What a text leaves open at its end, and which brackets and strings in it belong together."""

    def __init__(self, text):
        self.text = text
        self.is_comment = False
        self.string = None
        """The string that is open: where it begins, where its content does, its prefix in lower case, its quote."""
        self.brackets = []
        """Positions of brackets that are open."""
        self._openers = {}
        self._strings = {}
        formatted = []
        position = 0
        while True:
            if self.string is None:
                match = _PIECE_OF_CODE.search(text, position)
                if match is None:
                    break
                position = match.end()
                if match[1] is not None:
                    self.is_comment = position == len(text)
                elif match[3] is not None:
                    self.string = match.start(), position, (match[2] or "").lower(), match[3]
                elif match[4] is not None:
                    self.brackets.append(match.start())
                elif self.brackets:
                    self._openers[match.start()] = self.brackets.pop()
                    if formatted and formatted[-1][0] == len(self.brackets):
                        self.string = formatted.pop()[1]
            else:
                start, _, prefix, quote = self.string
                match = _PIECES_OF_STRINGS[quote, "f" in prefix or "t" in prefix].search(text, position)
                if match is None:
                    break
                position = match.end()
                if match[0] == quote or match[0] == "\n":
                    self._strings[position] = start
                    self.string = None
                elif match[0] == "{":
                    formatted.append((len(self.brackets), self.string))
                    self.brackets.append(match.start())
                    self.string = None

    def primary_before(self, end):
        """Where the expression begins that ends at `end`, `a.b[0]("x").c`; `end` itself: there is none."""
        text = self.text
        at = end
        while True:
            if at - 1 in self._openers:
                at = self._openers[at - 1]
                if at == 0 or not (text[at - 1].isalnum() or text[at - 1] in "_)]}'\""):
                    return at
            elif at in self._strings:
                return self._strings[at]
            elif match := _IDENTIFIER_END.search(text, max(0, at - 200), at):
                at = match.start()
                if at == 0 or text[at - 1] != ".":
                    return at
                at -= 1
                if at == 0:
                    return end
            else:
                # A number, or nothing, before a dot.
                return end if at < end else at

    def callee(self):
        """Where the expression is whose call is open: (start, end, position of its bracket); None: there is none."""
        for bracket in reversed(self.brackets):
            if self.text[bracket] != "(":
                continue
            end = len(self.text[:bracket].rstrip(" \t"))
            start = self.primary_before(end)
            return (start, end, bracket) if start < end else None
        return None
