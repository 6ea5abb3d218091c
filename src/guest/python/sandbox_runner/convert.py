"""Turns the value of the last expression into JSON data, whatever it is.

None, bool, int, float and str as they are; list and tuple become arrays, dict an object with string keys, or an array of pairs
where two keys become the same string; what has `to_dict()` (pandas) or `tolist()` (numpy) is converted by it; anything else is its `str()`. NaN and the infinities become
null, integers beyond 2**53 strings, cycles and what lies deeper than 100 levels `str()`. Never raises. docs/conversion.md has it
as a table.
"""

import math
import sys
from types import ModuleType

MAX_DEPTH = 100
MAX_EXACT_INTEGER = 2**53
MAX_BYTES = 10 * 1024 * 1024
_LEAST_BYTES = {"b": 6, "i": 9, "u": 9, "f": 13}
"""What an element of a list counts, by numpy's kind."""
_MANY = 1000
"""Rows or columns of a table from which on it pays to look before converting all of it."""
_SAMPLE = 50


def to_json_data(value):
    """Returns `(data, truncated)`; `data` serialises to about `MAX_BYTES` at the most."""
    converter = _Converter()
    return converter.convert(value, 0), converter.truncated


def describe(value, to_text=str):
    """`str(value)`, or what to say where that fails."""
    try:
        return str.__str__(to_text(value))
    except KeyboardInterrupt:  # a timeout
        raise
    except BaseException as error:
        if type(error) is ValueError and issubclass(type(value), int):  # over sys.get_int_max_str_digits()
            return _long_integer(value)
        return f"<{class_name(value)} object: {to_text.__name__}() raised {class_name(error)}>"


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


def answers_to_every_name(value):
    """Whether asking `value` for a method says nothing about what it is: a mock, or a proxy that makes up what it is asked for."""
    mock = sys.modules.get("unittest.mock")
    if isinstance(mock, ModuleType) and issubclass(type(value), mock.NonCallableMock):
        return True
    # The name that IPython asks for. Some classes know it and say no.
    return getattr_safely(value, "_ipython_canary_method_should_not_exist_") is not None


def _shown(value):
    # A mock counts calls of its `__str__`.
    return describe(value, repr if answers_to_every_name(value) else str)


def _has_in_class(value, name):
    return any(name in _class_dict(base) for base in _class_mro(type(value)))


_class_mro = type.__dict__["__mro__"].__get__
_class_dict = type.__dict__["__dict__"].__get__


class _Items:
    """Labels and values that a dict cannot hold: labels may come more than once."""

    def __init__(self, items):
        self.items = items


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
            return self._text(_shown(value))
        self._open.add(id(value))
        try:
            return self._compound(value, depth)
        except RecursionError:
            return self._text(_shown(value))
        finally:
            self._open.discard(id(value))

    def _compound(self, value, depth):
        kind = type(value)
        if issubclass(kind, dict):
            return self._object(list(dict.items(value)), depth)
        if kind is _Items:
            return self._object(value.items, depth)
        # A copy, because user code that runs on the way may change it; by slice, because `__iter__` may never end.
        if issubclass(kind, list):
            return self._array(list.__getitem__(value, slice(None)), depth)
        if issubclass(kind, tuple):
            return self._array(tuple.__getitem__(value, slice(None)), depth)
        if not issubclass(kind, type):
            if _is_missing(value):
                self._left -= 5
                return None
            value = self._prepare(value)
            if type(value) is list:
                return value
            if type(value) is dict:
                return self._object(list(value.items()), depth)
            if type(value) is _Items:
                return self._object(value.items, depth)
            invents = answers_to_every_name(value)
            for name in ("to_dict", "tolist"):
                if invents and not _has_in_class(value, name):
                    continue
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
        return self._text(_shown(value))

    def _prepare(self, value):
        """What to convert in the place of an array or a table, so that nothing is lost, nor made only to be cut off.

        A list is JSON data already.
        """
        numpy = sys.modules.get("numpy")
        pandas = sys.modules.get("pandas")
        try:
            if numpy is not None and issubclass(type(value), (numpy.ndarray, numpy.generic)):
                return self._prepare_array(numpy, value)
            if pandas is not None and issubclass(type(value), (pandas.DataFrame, pandas.Series, pandas.Index)):
                return self._prepare_table(pandas, value)
        except KeyboardInterrupt:  # a timeout
            raise
        except BaseException:
            pass
        return value

    def _prepare_array(self, numpy, value):
        least_bytes = _LEAST_BYTES.get(value.dtype.kind, 3)
        if value.ndim > 0:
            rows = self._fitting_rows(value, least_bytes)
            if rows == 0 and value.ndim > 1:
                self._left -= 1
                return [self.convert(value[0], 1)]
            value = value[:rows]
        if not _is_json_data(numpy, value):
            return _with_exact_elements(numpy, value)
        # As it is: converting a million elements one by one takes a second.
        self._left -= _list_bytes(value.shape, least_bytes)
        return value.tolist()

    def _prepare_table(self, pandas, value):
        if type(value) is pandas.DataFrame:
            if value.shape[1] > max(value.shape[0], _MANY):
                return self._prepare_wide_table(value)
        prepare = _preparation(pandas, value)
        if len(value) <= _MANY:
            return prepare(value)
        # By position: a slice of a table with numbers as labels means those.
        rows = value if issubclass(type(value), pandas.Index) else value.iloc
        # The last ones have the longest labels.
        samples = (prepare(rows[:_SAMPLE]), prepare(rows[-_SAMPLE:]))
        bytes_per_row = max(_bytes_per_row(sample, _SAMPLE) for sample in samples)
        fitting = max(int(self._left / bytes_per_row), 1)
        if fitting >= len(value):
            return prepare(value)
        self.truncated = True
        return prepare(rows[:fitting])

    def _prepare_wide_table(self, value):
        """As `to_dict()` has it, which takes a table apart by column, and a hundred times as long for many short ones."""
        fitting = max(self._left // (3 + 5 * value.shape[0]), 1)
        if fitting < value.shape[1]:
            self.truncated = True
            value = value.iloc[:, :fitting]
        labels = value.index.tolist()
        columns = value.to_numpy(dtype=object).T.tolist()
        items = [(name, _Items(list(zip(labels, column)))) for name, column in zip(value.columns.tolist(), columns)]
        return _Items(items)

    def _fitting_rows(self, value, least_bytes):
        """How many rows can be shown, if an element takes so many bytes, or more."""
        size = _list_bytes(value.shape, least_bytes)
        if size <= self._left:
            return value.shape[0]
        self.truncated = True
        return max(self._left, 0) * value.shape[0] // size

    def _object(self, items, depth):
        result = {}
        for index, (key, value) in enumerate(items):
            if self._left <= 0:
                self.truncated = True
                break
            name = str.__str__(key) if issubclass(type(key), str) else _shown(key)
            if name in result:
                return self._pairs(list(result.values()), items, index, depth)
            shown = self._text(name)
            if shown != name and shown in result:
                break
            result[shown] = self.convert(value, depth + 1)
        return result

    def _pairs(self, values, items, index, depth):
        """`[key, value]` for each, so that no key hides another. Of the first `index` the values are converted already."""
        result = [[self.convert(key, depth + 2), value] for (key, _), value in zip(items, values)]
        for key, value in items[index:]:
            if self._left <= 0:
                self.truncated = True
                break
            self._left -= 3
            result.append([self.convert(key, depth + 2), self.convert(value, depth + 2)])
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


def _is_missing(value):
    """Pandas writes NaT and NA where it writes NaN elsewhere."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and (value is getattr_safely(pandas, "NaT") or value is getattr_safely(pandas, "NA"))


def _preparation(pandas, value):
    """What to make of a table so that nothing is lost where labels come more than once: `to_dict()` keeps the last of them."""
    kind = type(value)
    if issubclass(kind, pandas.DataFrame) and kind.to_dict is pandas.DataFrame.to_dict:
        if not value.index.is_unique:
            return lambda table: _Items([(name, _Items(list(column.items()))) for name, column in table.items()])
        if not value.columns.is_unique:
            return lambda table: _Items(list(table.items()))
    elif issubclass(kind, pandas.Series) and kind.to_dict is pandas.Series.to_dict and not value.index.is_unique:
        return lambda series: _Items(list(series.items()))
    return lambda table: table


def _bytes_per_row(rows, count):
    sample = _Converter()
    sample.convert(rows, 0)
    return max((MAX_BYTES - sample._left) / count, 1)


def _list_bytes(shape, element_bytes):
    """What nested lists of this shape count: their elements, and one for each inner list."""
    count = 1
    inner = 0
    for length in shape:
        count *= length
        inner += count
    return count * element_bytes + inner - count


def _is_json_data(numpy, value):
    """Whether `tolist()` gives numbers that JSON has."""
    kind = value.dtype.kind
    if type(value) is not numpy.ndarray or value.ndim == 0 or kind not in _LEAST_BYTES or value.dtype.itemsize > 8:
        return False
    if kind == "f":
        return bool(numpy.isfinite(value).all())
    if kind in "iu" and value.size > 0:
        return -MAX_EXACT_INTEGER <= int(value.min()) <= int(value.max()) <= MAX_EXACT_INTEGER
    return True


def _with_exact_elements(numpy, value):
    """Where `tolist()` would make bare integers of points in time, or leave what is no Python number."""
    kind, unit = value.dtype.kind, None
    if kind in "mM":
        unit = numpy.datetime_data(value.dtype)[0]
    if value.dtype.char in "gG":
        return value.astype("float64" if kind == "f" else "complex128")
    if kind == "M" and unit in ("ns", "ps", "fs", "as"):
        # As Python and pandas write them, all nine digits included.
        return _each(numpy, value, lambda item: str(item).replace("T", " "))
    if kind == "m" and unit in ("ns", "ps", "fs", "as", "M", "Y"):
        return _each(numpy, value, str)
    return value


def _each(numpy, value, function):
    converted = numpy.empty(value.shape, dtype=object)
    for index in numpy.ndindex(value.shape):
        item = value[index]
        converted[index] = None if numpy.isnat(item) else function(item)
    return converted


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
