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
        return str.__str__(str(value))
    except KeyboardInterrupt:  # a timeout
        raise
    except BaseException as error:
        if type(error) is ValueError and issubclass(type(value), int):  # over sys.get_int_max_str_digits()
            return _long_integer(value)
        return f"<{class_name(value)} object: str() raised {class_name(error)}>"


def class_name(value):
    """The name of `value`'s class, whatever its metaclass says."""
    return type.__dict__["__name__"].__get__(type(value))


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
        # Not isinstance(): a mock's `__class__` is what it stands for.
        kind = type(value)
        if issubclass(kind, str):
            return self._text(str.__str__(value))
        if issubclass(kind, int):
            return self._integer(int.__int__(value))
        if issubclass(kind, float):
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
        kind = type(value)
        if issubclass(kind, dict):
            return self._object(list(dict.items(value)), depth)
        # A copy, because user code that runs on the way may change it; by slice, because `__iter__` may never end.
        if issubclass(kind, list):
            return self._array(list.__getitem__(value, slice(None)), depth)
        if issubclass(kind, tuple):
            return self._array(tuple.__getitem__(value, slice(None)), depth)
        if not issubclass(kind, type):
            for name in ("to_dict", "tolist"):
                method = getattr_safely(value, name)
                if not callable(method):
                    continue
                try:
                    converted = method()
                except KeyboardInterrupt:  # a timeout
                    raise
                except BaseException:
                    continue
                if converted is not value:
                    return self.convert(converted, depth + 1)
        return self._text(describe(value))

    def _object(self, items, depth):
        result = {}
        for key, value in items:
            if self._left <= 0:
                self.truncated = True
                break
            name = str.__str__(key) if issubclass(type(key), str) else describe(key)
            name = self._text(name)
            result[name] = self.convert(value, depth + 1)
        return result

    def _array(self, values, depth):
        result = []
        for value in values:
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
        size = _size(text)
        if size > self._left:
            self.truncated = True
            encoded = text.encode("utf-8", "surrogatepass")[: max(self._left, 0)]
            text = encoded.decode("utf-8", "ignore")
            size = len(encoded)
        self._left -= size + 2
        return text


def _size(text):
    """Bytes of `text` in UTF-8."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def getattr_safely(value, name):
    """`getattr(value, name, None)` that survives a `__getattr__` that raises something else."""
    try:
        return getattr(value, name, None)
    except KeyboardInterrupt:  # a timeout
        raise
    except BaseException:
        return None
