"""Turns the value of the last expression into JSON data, whatever it is.

None, bool, int, float and str as they are; list and tuple become arrays, dict an object with string keys; what has
`to_dict()` (pandas) or `tolist()` (numpy) is converted by it; anything else is its `str()`. NaN and the infinities become
null, integers beyond 2**53 strings, cycles and what lies deeper than 100 levels `str()`. Never raises.
"""

import math
import sys

MAX_DEPTH = 100
MAX_EXACT_INTEGER = 2**53
MAX_BYTES = 10 * 1024 * 1024


def to_json_data(value):
    """Returns `(data, truncated)`; `data` serialises to about `MAX_BYTES` at the most."""
    converter = _Converter()
    return converter.convert(value, 0), converter.truncated


def describe(value):
    """`str(value)`, or what to say where that fails."""
    try:
        text = str(value)
        return str.__str__(text) if isinstance(text, str) else object.__repr__(value)
    except ValueError as error:
        if isinstance(value, int):  # over sys.get_int_max_str_digits()
            return _long_integer(value)
        return _undescribable(value, error)
    except Exception as error:
        return _undescribable(value, error)


def _undescribable(value, error):
    return f"<{type(value).__name__} object: str() raised {type(error).__name__}>"


def _long_integer(value):
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        return int.__repr__(value)
    finally:
        sys.set_int_max_str_digits(limit)


class _Converter:
    def __init__(self):
        self.truncated = False
        self._left = MAX_BYTES
        self._open = set()

    def convert(self, value, depth):
        if value is None or value is True or value is False:
            self._left -= 5
            return value
        if isinstance(value, str):
            return self._text(str.__str__(value))
        if isinstance(value, int):
            return self._integer(int.__int__(value))
        if isinstance(value, float):
            return self._float(float.__float__(value))
        if depth >= MAX_DEPTH or id(value) in self._open:
            return self._text(describe(value))
        self._open.add(id(value))
        try:
            return self._compound(value, depth)
        except RecursionError:
            return self._text(describe(value))
        finally:
            self._open.discard(id(value))

    def _compound(self, value, depth):
        if isinstance(value, dict):
            return self._object(dict.items(value), depth)
        if isinstance(value, (list, tuple)):
            return self._array(value, depth)
        if not isinstance(value, type):
            for name in ("to_dict", "tolist"):
                method = getattr_safely(value, name)
                if not callable(method):
                    continue
                try:
                    converted = method()
                except Exception:
                    continue
                if converted is not value:
                    return self.convert(converted, depth + 1)
        return self._text(describe(value))

    def _object(self, items, depth):
        result = {}
        for key, value in list(items):
            if self._left <= 0:
                self.truncated = True
                break
            name = str.__str__(key) if isinstance(key, str) else describe(key)
            name = self._text(name)
            result[name] = self.convert(value, depth + 1)
        return result

    def _array(self, values, depth):
        result = []
        for value in list(values):
            if self._left <= 0:
                self.truncated = True
                break
            self._left -= 1
            result.append(self.convert(value, depth + 1))
        return result

    def _integer(self, value):
        if -MAX_EXACT_INTEGER <= value <= MAX_EXACT_INTEGER:
            self._left -= 8
            return value
        return self._text(describe(value))

    def _float(self, value):
        self._left -= 12
        return value if math.isfinite(value) else None

    def _text(self, text):
        if len(text) > self._left:
            self.truncated = True
            text = text[: max(self._left, 0)]
        self._left -= len(text) + 2
        return text


def getattr_safely(value, name):
    """`getattr(value, name, None)` that survives a `__getattr__` that raises something else."""
    try:
        return getattr(value, name, None)
    except Exception:
        return None
