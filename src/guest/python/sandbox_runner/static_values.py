# Over 400 lines: one kind of value beside the other, as the resolver tells them apart.
"""What expressions are, without running code: names, attributes and elements that lie there, and classes that annotations name.

Nothing of the program's is called: no property, no `__getattr__`, no `__dir__`, no `__repr__`. So an answer may be that it is not known.
"""

import annotationlib
import ast
import builtins
import functools
import inspect
import io
import sys
import types

UNKNOWN = type("Unknown", (), {"__slots__": ()})()
_SOME = object()
"""In place of an object of which the class alone is known."""
_MAX_EXPRESSION_CHARACTERS = 2000
_METHODS_IN_C = (types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType)
_FIELDS_IN_C = (types.GetSetDescriptorType, types.MemberDescriptorType)
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.MethodWrapperType, *_METHODS_IN_C)
_PLAIN = (int, float, complex, bool, str, bytes, type(None), type(...))
_CONTAINERS = (list, tuple, dict, set, frozenset, str, bytes, range)
_LITERALS = {
    ast.List: list,
    ast.ListComp: list,
    ast.Dict: dict,
    ast.DictComp: dict,
    ast.Set: set,
    ast.SetComp: set,
    ast.Tuple: tuple,
    ast.JoinedStr: str,
    ast.GeneratorExp: types.GeneratorType,
    ast.Lambda: types.FunctionType,
}
mro_of = type.__dict__["__mro__"].__get__
_dict_of_class = type.__dict__["__dict__"].__get__


class Instance:
    """An object of which the class is known, and nothing else."""

    __slots__ = ("cls",)

    def __init__(self, cls):
        self.cls = cls


def evaluate(expression, names, is_definition=False):
    """What an expression is: an object, an `Instance`, or `UNKNOWN`.

    `is_definition`: a property is what defines it, instead of an `Instance` of its value's class.
    """
    if len(expression) > _MAX_EXPRESSION_CHARACTERS:
        return UNKNOWN
    try:
        node = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return UNKNOWN
    if is_definition and isinstance(node, ast.Attribute):
        owner = _value_of(node.value, names)
        return UNKNOWN if owner is UNKNOWN else _attribute(owner, node.attr, True)
    return _value_of(node, names)


def names_in(names):
    """All that a name may be: name → value."""
    return {**builtins.__dict__, **names}


def members(value):
    """Names of attributes, and what each is: name → object, descriptor or `UNKNOWN`."""
    found = {}
    if is_a(value, types.ModuleType):
        found.update(_dict_of_module(value))
        listed = found.get("__all__")
        for name in listed if type(listed) in (list, tuple) else ():
            if type(name) is str:
                found.setdefault(name, UNKNOWN)
        return found
    if is_class(value):
        classes = mro_of(value)
    else:
        classes = mro_of(class_of(value))
    for cls in reversed(classes):
        found.update(_dict_of_class(cls))
    for cls in classes if type(value) is Instance else ():
        for name in _annotations_of(cls):
            found.setdefault(name, UNKNOWN)
    own = _dict_of_instance(value)
    if own is not None:
        found.update(own)
    for column in columns(value):
        if column.isidentifier():
            found.setdefault(column, UNKNOWN)
    return {name: member for name, member in found.items() if type(name) is str}


def keys(value):
    """Keys of a mapping that are strings; those of a table are its columns' names."""
    if is_a(value, dict):
        return [key for key in dict.keys(value) if type(key) is str]
    return columns(value)


def columns(value):
    pandas = sys.modules.get("pandas")
    if pandas is None or type(value) is not getattr(pandas, "DataFrame", None):
        return []
    # The class is the library's own: its properties are, too.
    return [name for name in value.columns[:10_000] if type(name) is str]


def function_behind(value):
    """The function that a callable object stands for, as `functools.wraps` says it: numpy's and cached ones are such. Else the value itself."""
    if type(value) is Instance or is_class(value) or is_a(value, _FUNCTIONS):
        return value
    own = _dict_of_instance(value)
    wrapped = own.get("__wrapped__") if own else None
    return wrapped if is_a(wrapped, types.FunctionType) else value


def kind_of(member):
    member = function_behind(member)
    if is_a(member, types.ModuleType):
        return "module"
    if is_class(member):
        return "class"
    if is_a(member, (*_FUNCTIONS, staticmethod, classmethod)):
        return "function"
    if is_a(member, (property, functools.cached_property, *_FIELDS_IN_C)):
        return "property"
    return "instance"


def is_a(value, kinds):
    """As `isinstance`, which asks an object for its `__class__` as well."""
    return issubclass(type(value), kinds)


def is_class(value):
    return issubclass(type(value), type)


def is_plain_class(value):
    """A class whose attributes can be read without its metaclass doing so."""
    return is_class(value) and _lookup(type(value), "__getattribute__") is type.__dict__["__getattribute__"] and not is_a(
        _lookup(type(value), "__getattr__"), _FUNCTIONS
    )


def qualified_name(value):
    """Of a class, without asking its metaclass."""
    return type.__dict__["__qualname__"].__get__(value)


def class_of(value):
    return value.cls if type(value) is Instance else type(value)


def documentation(value):
    """The docstring, of an object without one that of its class; None: there is none."""
    value = function_behind(value)
    if is_a(value, property):
        text = _text_of(value, property.__dict__["__doc__"])
        return text or (documentation(value.fget) if is_a(value.fget, types.FunctionType) else None)
    if is_a(value, functools.cached_property):
        return documentation(value.func)
    if is_a(value, (staticmethod, classmethod)):
        return documentation(value.__func__)
    if is_a(value, types.MethodType):
        return documentation(value.__func__)
    if is_a(value, types.ModuleType):
        text = _dict_of_module(value).get("__doc__")
    elif is_class(value):
        text = _class_documentation(value)
    elif is_a(value, (*_FUNCTIONS, *_FIELDS_IN_C)):
        text = value.__doc__
    else:
        text = _class_documentation(class_of(value))
    return inspect.cleandoc(text) if type(text) is str and text.strip() else None


def parameters(value):
    """The parameters with which it is called, as `inspect` has them; None: not known."""
    signature = signature_of(value)
    return None if signature is None else list(signature.parameters.values())


def signature_of(value):
    """The signature of a function or a class, with defaults and annotations that are safe to be shown; None: not known."""
    value = function_behind(value)
    if is_a(value, (staticmethod, classmethod)):
        value = value.__func__
    if is_class(value):
        value = _constructor(value)
    elif not is_a(value, _FUNCTIONS):
        call = _lookup(class_of(value), "__call__")
        if not is_a(call, types.FunctionType):
            return None
        value = types.MethodType(call, _SOME)
    try:
        if is_a(value, (types.FunctionType, types.MethodType)):
            signature = inspect.signature(value, annotation_format=annotationlib.Format.STRING)
        else:
            signature = inspect.signature(value)
    except (TypeError, ValueError, AttributeError, NameError):
        return None
    if type(signature) is not inspect.Signature:
        return None
    return signature.replace(
        parameters=[
            parameter.replace(default=_shown(parameter.default), annotation=_annotation(parameter.annotation))
            for parameter in signature.parameters.values()
        ],
        return_annotation=_annotation(signature.return_annotation),
    )


def shown(value):
    """The text of a value that is shown without the program's help; None: it is not known."""
    if type(value) in _PLAIN:
        text = repr(value)
        return text if len(text) <= 1000 else f"{text[:1000]}…"
    return None


def length(value):
    return len(value) if type(value) in _CONTAINERS else None


class _Text:
    """A default value, as it is shown."""

    __slots__ = ("_text",)

    def __init__(self, text):
        self._text = text

    def __repr__(self):
        return self._text


def _shown(default):
    if default is inspect.Parameter.empty:
        return default
    if is_class(default) or is_a(default, types.FunctionType):
        return _Text(f"<{'class' if is_class(default) else 'function'} {_name_of(default)}>")
    return _Text(shown(default) or f"<{_name_of(type(default))} object>")


def _annotation(annotation):
    if annotation is inspect.Parameter.empty or type(annotation) is str:
        # A string is shown with quotes, which the source does not have.
        return annotation if type(annotation) is not str else _Text(annotation)
    return _Text(_name_of(annotation if is_class(annotation) else type(annotation)))


def _name_of(value):
    name = type.__dict__["__name__"].__get__(value) if is_class(value) else value.__name__
    return name if type(name) is str else "?"


def _value_of(node, names):
    kind = type(node)
    if kind is ast.Constant:
        return node.value
    if kind is ast.Name:
        return names.get(node.id, UNKNOWN)
    if kind in _LITERALS:
        return Instance(_LITERALS[kind])
    if kind is ast.Attribute:
        owner = _value_of(node.value, names)
        return UNKNOWN if owner is UNKNOWN else _attribute(owner, node.attr, False)
    if kind is ast.Subscript:
        return _element(_value_of(node.value, names), _index(node.slice, names))
    if kind is ast.Call:
        return _called(_value_of(node.func, names))
    return UNKNOWN


def _index(node, names):
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        value = node.operand.value
        return -value if type(value) is int else UNKNOWN
    value = _value_of(node, names)
    return value if type(value) in _PLAIN else UNKNOWN


def _element(container, index):
    if index is UNKNOWN or type(container) not in (dict, list, tuple, str):
        return UNKNOWN
    try:
        return container[index]
    except (LookupError, TypeError):
        return UNKNOWN


def _called(function):
    function = function_behind(function)
    if function is open or function is io.open:
        return Instance(io.TextIOWrapper)
    if is_class(function):
        return Instance(function)
    if is_a(function, types.MethodType):
        owner = function.__self__
        return _annotated(function.__func__, owner if is_class(owner) else class_of(owner))
    return _annotated(function, None) if is_a(function, types.FunctionType) else UNKNOWN


def _annotated(function, owner):
    """What a function returns by its annotation, which is read as text and not evaluated."""
    if not is_a(function, types.FunctionType):
        return UNKNOWN
    try:
        annotations = annotationlib.get_annotations(function, format=annotationlib.Format.STRING)
        node = ast.parse(annotations["return"], mode="eval").body
    except Exception:
        return UNKNOWN
    cls = _class_named(node, names_in(function.__globals__), owner)
    return UNKNOWN if cls is None else Instance(cls)


def _class_named(node, names, owner, depth=0):
    if depth > 10:
        return None
    if isinstance(node, ast.Constant) and type(node.value) is str:
        try:
            return _class_named(ast.parse(node.value, mode="eval").body, names, owner, depth + 1)
        except (SyntaxError, ValueError):
            return None
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _class_named(node.left, names, owner, depth + 1) or _class_named(node.right, names, owner, depth + 1)
    if isinstance(node, ast.Subscript):
        name = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
        inner = node.slice if name in ("Optional", "Annotated", "Final", "ClassVar") else node.value
        inner = inner.elts[0] if isinstance(inner, ast.Tuple) and inner.elts else inner
        return _class_named(inner, names, owner, depth + 1)
    if isinstance(node, (ast.Name, ast.Attribute)):
        if owner is not None and (node.attr if isinstance(node, ast.Attribute) else node.id) == "Self":
            return owner
        found = _value_of(node, names)
        return found if is_class(found) and found is not type(None) else None
    return None


def _attribute(owner, name, is_definition):
    if is_a(owner, types.ModuleType):
        return _dict_of_module(owner).get(name, UNKNOWN)
    if is_class(owner):
        found = _lookup(owner, name)
        if is_a(found, staticmethod):
            return found.__func__
        return types.MethodType(found.__func__, owner) if is_a(found, classmethod) else found
    cls = class_of(owner)
    is_known = type(owner) is not Instance
    found = _lookup(cls, name)
    if is_a(found, (property, functools.cached_property)):
        own = _dict_of_instance(owner)
        if is_a(found, functools.cached_property) and own and name in own and not is_definition:
            return own[name]
        if is_definition:
            return found
        return _annotated(found.fget if is_a(found, property) else found.func, cls)
    if is_a(found, _FIELDS_IN_C):
        if not is_known or is_definition and not is_a(found, types.MemberDescriptorType):
            return found if is_definition else UNKNOWN
        try:
            return found.__get__(owner, cls)
        except Exception:
            return UNKNOWN
    own = _dict_of_instance(owner)
    if own is not None and name in own:
        return own[name]
    if is_a(found, types.FunctionType):
        return types.MethodType(found, owner if is_known else _SOME)
    if is_a(found, classmethod):
        return types.MethodType(found.__func__, cls)
    if is_a(found, staticmethod):
        return found.__func__
    if is_a(found, _METHODS_IN_C) and is_known:
        return found.__get__(owner, cls)
    if found is UNKNOWN and not is_known:
        return _declared(cls, name)
    return found


def _declared(cls, name):
    """What the class says of an attribute that its objects have."""
    for base in mro_of(cls):
        text = _annotations_of(base).get(name)
        if type(text) is str:
            try:
                node = ast.parse(text, mode="eval").body
            except (SyntaxError, ValueError):
                return UNKNOWN
            module = sys.modules.get(_dict_of_class(base).get("__module__"))
            found = _class_named(node, names_in(_dict_of_module(module) if is_a(module, types.ModuleType) else {}), cls)
            return UNKNOWN if found is None else Instance(found)
    return UNKNOWN


def _annotations_of(cls):
    """As text: nothing of them is evaluated."""
    if _lookup(type(cls), "__getattribute__") is not type.__getattribute__:
        return {}
    try:
        return annotationlib.get_annotations(cls, format=annotationlib.Format.STRING)
    except Exception:
        return {}


def _lookup(cls, name):
    for base in mro_of(cls):
        namespace = _dict_of_class(base)
        if name in namespace:
            return namespace[name]
    return UNKNOWN


def _dict_of_module(module):
    return types.ModuleType.__dict__["__dict__"].__get__(module)


def _dict_of_instance(value):
    """None: it has none that lies there."""
    if type(value) is Instance or is_class(value):
        return None
    descriptor = _lookup(type(value), "__dict__")
    if not is_a(descriptor, types.GetSetDescriptorType):
        return None
    own = descriptor.__get__(value)
    return own if type(own) is dict else None


def _class_documentation(cls):
    for base in mro_of(cls):
        if base is object and cls is not object:
            return None
        text = _dict_of_class(base).get("__doc__")
        if type(text) is str:
            return text
        if is_a(text, types.GetSetDescriptorType) and base is type:
            return type.__doc__
    return None


def _text_of(value, descriptor):
    text = descriptor.__get__(value)
    return inspect.cleandoc(text) if type(text) is str else None


def _constructor(cls):
    """What a call of a class calls, without the parameter that is the object."""
    for name in ("__init__", "__new__"):
        found = _lookup(cls, name)
        found = found.__func__ if is_a(found, staticmethod) else found
        if is_a(found, types.FunctionType):
            return types.MethodType(found, _SOME)
    return cls
