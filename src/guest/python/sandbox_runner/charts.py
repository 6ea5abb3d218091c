"""What a matplotlib figure shows, as data: lines, points, bars, slices and boxes, with titles, labels, ticks, scales and units.

The shape is the one that the clients of E2B read. Where it does not fit a drawing, its type is
`unknown` and it has no elements. Matplotlib's classes are known by name: a stand-in for one of them is not looked for.
"""

import datetime
import math
import re
import sys
import warnings

from . import convert

MIME = "application/vnd.pyodide-express.chart+json"
_MAX_POINTS = 10_000
"""Of all elements of a figure together; more are thinned out."""
_MAX_TICKS = 500
_MAX_AXES = 100
_UNIT = re.compile(r"\s\((.*?)\)|\[(.*?)\]")
_DATE_CONVERTERS = ("Date", "Period", "TimeConverter")
_WORDS = {"line": "Line", "scatter": "Dataset", "bar": "Group", "pie": "Slice", "box_and_whisker": "Box"}


def chart_of(figure):
    """Returns a chart as JSON data; None: nothing is drawn, or it cannot be told what. Raises nothing but interrupts."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _chart_of(figure)
    except Exception:
        return None


def _chart_of(figure):
    all_axes = [axes for axes in figure.get_axes() if not _is_colorbar(axes) and axes.get_visible()]
    if not any(axes.has_data() for axes in all_axes):
        return None
    shown, budget = all_axes[:_MAX_AXES], _Budget()
    charts = [_chart_of_axes(axes, budget) for axes in shown]
    suptitle = figure.get_suptitle() or None
    if len(all_axes) == 1:
        chart = charts[0]
        chart["title"] = chart["title"] or suptitle
    else:
        chart = {"type": "superchart", "title": suptitle, "elements": charts}
    if budget.is_cut or len(shown) < len(all_axes):
        chart["truncated"] = True
    return chart


class _Budget:
    """Elements that are left, and whether some were left out."""

    def __init__(self):
        self.left = _MAX_POINTS
        self.is_cut = False

    def thinned(self, points, share):
        """Every n-th of the points, so that no more than a share of what is left remains."""
        most = max(self.left // share, 1)
        step = math.ceil(len(points) / most)
        if step > 1:
            self.is_cut = True
            points = points[::step]
        self.left = max(self.left - len(points), 0)
        return points

    def cut(self, elements):
        if len(elements) > self.left:
            self.is_cut = True
            elements = elements[: self.left]
        self.left -= len(elements)
        return elements


def _is_a(value, *names):
    return any(kind.__name__ in names for kind in type(value).__mro__)


def _is_colorbar(axes):
    return getattr(axes, "_colorbar", None) is not None or axes.get_label() == "<colorbar>"


def _chart_of_axes(axes, budget):
    children = [child for child in axes.get_children() if child in axes._children and not _is_a(child, "Text", "Shadow")]
    kind, parts = _kind_of(axes, children)
    chart = {"type": kind, "title": axes.get_title() or axes.get_title("left") or axes.get_title("right") or None}
    if kind in ("unknown", "pie"):
        return chart | {"elements": budget.cut(_slices(parts)) if kind == "pie" else []}
    x, y = _Axis(axes.xaxis), _Axis(axes.yaxis)
    if kind in ("line", "scatter"):
        points = _line_points if kind == "line" else _scatter_points
        elements = []
        for index, part in enumerate(parts):
            found = points(part, x, y)
            kept = budget.thinned(found, len(parts) - index)
            element = {"label": _label(part, kind, index), "points": [[x.value(a), y.value(b)] for a, b in kept]}
            elements.append(element if len(kept) == len(found) else element | {"total": len(found)})
        return chart | x.names("x") | y.names("y") | x.scale("x") | y.scale("y") | {"elements": elements}
    # As if what has the values were always the vertical axis.
    elements, is_vertical = (_bars if kind == "bar" else _boxes)(parts, x, y)
    across, along = (x, y) if is_vertical else (y, x)
    return chart | across.names("x") | along.names("y") | {"elements": budget.cut(elements)}


def _kind_of(axes, children):
    """What is drawn, and the artists that it is drawn with."""
    if not children or getattr(axes, "name", "") == "3d":
        return "unknown", []
    children = [child for child in children if _is_data(child, axes)]
    lines = [child for child in children if _is_a(child, "Line2D")]
    patches = [child for child in children if _is_a(child, "PathPatch")]
    boxes = patches or [line for line in lines if _box_edges(line) is not None]
    others = [child for child in children if child not in lines and child not in boxes]
    if boxes and not others and any(_is_median(line, _box_edges(box)) for box in boxes for line in lines):
        return "box_and_whisker", (boxes, lines)
    aids = _aids(axes)
    data = [child for child in children if child not in aids and not _is_a(child, "LineCollection")]
    lined = [child for child in data if not _is_a(child, "PolyCollection")]
    if lined and all(_is_a(child, "Line2D") for child in lined):
        return "line", lined
    # Beside other things a straight line along an axis is an error bar, or a limit.
    data = [child for child in data if not (_is_a(child, "Line2D") and _is_straight(child))]
    containers = [one for one in axes.containers if _is_a(one, "BarContainer") and len(one) > 0]
    if containers and all(_is_a(child, "Rectangle") for child in data):
        return "bar", containers
    if data and all(_is_a(child, "PathCollection") for child in data):
        return "scatter", data
    if data and all(_is_a(child, "Wedge") for child in data):
        return "pie", data
    return "unknown", []


def _is_data(child, axes):
    """Whether it has its place by data: limits and spans have theirs, or a part of it, by the axes. What a legend alone shows has no size."""
    if _is_a(child, "Line2D"):
        return child.get_transform() is axes.transData
    if _is_a(child, "Rectangle") and child.get_width() == child.get_height() == 0:
        return False
    return not _is_a(child, "Patch") or child.get_data_transform() is axes.transData


def _aids(axes):
    """Caps of error bars, and base lines."""
    aids = []
    for container in axes.containers:
        if _is_a(container, "ErrorbarContainer"):
            aids += container.lines[1]
        elif _is_a(container, "StemContainer"):
            aids.append(container.baseline)
    return aids


def _is_straight(line):
    x, y = line.get_xdata(), line.get_ydata()
    return len(x) == len(y) == 2 and bool(x[0] == x[1] or y[0] == y[1])


def _label(artist, kind, index):
    label = artist.get_label()
    if not _is_name(label):
        # Of error bars all together have the name.
        for container in artist.axes.containers if kind == "line" else ():
            parts = (getattr(container, "lines", ()) or ())[:1] or (getattr(container, "markerline", None),)
            if artist in parts and _is_name(container.get_label()):
                return container.get_label()
        return f"{_WORDS[kind]} {index}"
    return label


def _is_name(label):
    return isinstance(label, str) and label != "" and not label.startswith("_")


class _Axis:
    def __init__(self, axis):
        self._axis = axis
        get_converter = getattr(axis, "get_converter", None)
        converter = get_converter() if get_converter is not None else getattr(axis, "converter", None)
        name = type(converter).__name__
        self._is_period = name == "PeriodConverter"
        self._is_date = any(word in name for word in _DATE_CONVERTERS)
        mapping = getattr(axis.get_units(), "_mapping", None) if name == "StrCategoryConverter" else None
        self._categories = None if mapping is None else {place: text for text, place in mapping.items()}
        self._tick_list = None

    def names(self, prefix):
        label = self._axis.label.get_text() or None
        unit = _UNIT.search(label) if label is not None else None
        return {f"{prefix}_label": label, f"{prefix}_unit": (unit[1] or unit[2]) if unit is not None else None}

    def scale(self, prefix):
        ticks = self.ticks()[:_MAX_TICKS]
        return {
            f"{prefix}_ticks": [self._date(place) if self._is_date else place for place, _ in ticks],
            f"{prefix}_tick_labels": [text for _, text in ticks],
            f"{prefix}_scale": self._scale(ticks),
        }

    def _scale(self, ticks):
        if self._is_date:
            return "datetime"
        scale = self._axis.get_scale()
        if scale != "linear" or self._categories is not None:
            return "categorical" if scale == "linear" else scale
        is_counted = ticks and all(place == number and text != str(number) for number, (place, text) in enumerate(ticks))
        return "categorical" if is_counted and not any(map(_is_number, (text for _, text in ticks))) else "linear"

    def ticks(self):
        """Places and labels."""
        if self._tick_list is None:
            texts = [label.get_text() for label in self._axis.get_majorticklabels()]
            places = [float(place) for place in self._axis.get_majorticklocs()]
            self._tick_list = [(place, text) for place, text in zip(places, texts) if math.isfinite(place)]
        return self._tick_list

    def value(self, value):
        """A value of the data as it is written: dates in ISO 8601, categories by name."""
        if hasattr(value, "item"):
            if type(value).__name__ == "datetime64":
                return None if value != value else str(value.astype("datetime64[us]").item().isoformat())
            value = value.item()
        if hasattr(value, "to_timestamp"):  # pandas' Period
            value = value.to_timestamp()
        if isinstance(value, (datetime.date, datetime.time)):
            return value.isoformat() if value == value else None
        if isinstance(value, str):
            return value
        if isinstance(value, (int, float)):
            if not math.isfinite(value):
                return None
            if self._is_date:
                return self._date(value)
            if self._categories is not None and value in self._categories:
                return self._categories[value]
        return convert.to_json_data(value)[0]

    def _date(self, number):
        if self._is_period:
            frequency = getattr(self._axis.axes, "freq", None) or getattr(self._axis, "freq", None)
            return sys.modules["pandas"].Period(ordinal=round(number), freq=frequency).to_timestamp().isoformat()
        return sys.modules["matplotlib.dates"].num2date(number).replace(tzinfo=None).isoformat()

    def name_at(self, place, reach):
        """What stands at a place: the nearest tick's label where ticks have names, or the place itself."""
        ticks = [] if self._is_date else [(tick, text) for tick, text in self.ticks() if text]
        if ticks and not all(_is_number(text) for _, text in ticks):
            tick, text = min(ticks, key=lambda found: abs(found[0] - place))
            spacing = min((abs(b[0] - a[0]) for a, b in zip(ticks, ticks[1:])), default=1)
            if abs(tick - place) <= max(spacing / 2, reach * 1e-6):
                return text
        return self._date(place) if self._is_date else f"{place:.12g}"


def _is_number(text):
    try:
        float(text.replace("−", "-"))
    except ValueError:
        return False
    return True


def _line_points(line, _x, _y):
    return list(zip(_listed(line.get_xdata()), _listed(line.get_ydata())))


def _scatter_points(collection, _x, _y):
    return [(a, b) for a, b in collection.get_offsets().tolist() if a is not None and b is not None]


def _listed(values):
    """With dates as dates: as a list numpy makes numbers of those."""
    if hasattr(values, "tolist") and getattr(getattr(values, "dtype", None), "kind", "") not in "mM":
        return values.tolist()
    return list(values)


def _slices(wedges):
    return [
        {
            "label": _label(wedge, "pie", index),
            "angle": abs(round(float(wedge.theta2) - float(wedge.theta1), 4)),
            "radius": float(wedge.r),
        }
        for index, wedge in enumerate(wedges)
    ]


def _bars(containers, x, y):
    is_vertical = all(_is_upright(container) for container in containers)
    across = x if is_vertical else y
    elements = []
    for index, container in enumerate(containers):
        group = _label(container, "bar", index)
        spans = []
        for bar in container:
            start, size = (bar.get_x(), bar.get_width()) if is_vertical else (bar.get_y(), bar.get_height())
            spans.append((float(start), float(size), float(bar.get_height() if is_vertical else bar.get_width())))
        # Those of a histogram: each begins where the one before ends.
        touches = len(spans) > 1 and all(
            math.isclose(a[0] + a[1], b[0], rel_tol=1e-6, abs_tol=abs(b[1]) * 1e-6) for a, b in zip(spans, spans[1:])
        )
        for start, size, value in spans:
            label = f"{start:.6g} – {start + size:.6g}" if touches and not across._is_date else across.name_at(start + size / 2, abs(size))
            elements.append({"label": label, "group": group, "value": value if math.isfinite(value) else None})
    return elements, is_vertical


def _is_upright(container):
    orientation = getattr(container, "orientation", None)
    if orientation is not None:
        return orientation == "vertical"
    return len({round(float(bar.get_width()), 9) for bar in container}) == 1


def _box_edges(box):
    """Sides of a box, `((left, right), (bottom, top), is_notched)`; None: it is none. A line is one if it is closed and has right angles."""
    if _is_a(box, "Line2D"):
        points = list(zip(box.get_xdata(), box.get_ydata()))
        if len(points) not in (5, 11) or not _is_same(points[0][0], points[-1][0]) or not _is_same(points[0][1], points[-1][1]):
            return None
    else:
        points = box.get_path().vertices.tolist()
        if len(points) < 5:
            return None
    try:
        points = [(float(a), float(b)) for a, b in points]
    except (TypeError, ValueError):
        return None
    is_notched = len(points) >= 11
    if is_notched:  # they may reach beyond the quartiles
        points = [points[index] for index in (0, 1, 5, 6, 0)]
    xs, ys = sorted({a for a, _ in points}), sorted({b for _, b in points})
    if len(points) > 6 or any(not (_is_same(a, xs[0]) or _is_same(a, xs[-1])) for a in xs) or any(
        not (_is_same(b, ys[0]) or _is_same(b, ys[-1])) for b in ys
    ):
        return None
    return (xs[0], xs[-1]), (ys[0], ys[-1]), is_notched


def _is_same(a, b):
    try:
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12)
    except TypeError:
        return a == b


def _is_median(line, edges):
    """Whether a line goes across a box, from one side to the other."""
    return edges is not None and (_crosses(line, edges, True) or _crosses(line, edges, False))


def _crosses(line, edges, is_vertical):
    found = _segment(line, is_vertical)
    if found is None:
        return False
    (a, value), (b, other) = found
    (left, right), (low, high) = _turned(edges, is_vertical)
    start, end = min(a, b), max(a, b)
    if not _is_same(value, other) or not low <= value <= high:
        return False
    if edges[2]:
        # From notch to notch.
        return end > start and _is_same(start + end, left + right)
    return _is_same(start, left) and _is_same(end, right)


def _turned(edges, is_vertical):
    """Those across, and those along the values."""
    across, along, _ = edges
    return (across, along) if is_vertical else (along, across)


def _segment(line, is_vertical):
    """Two points, `(across, along)`; None: it is no line between two numbers."""
    x, y = line.get_xdata(), line.get_ydata()
    if len(x) != 2 or len(y) != 2 or any(isinstance(value, str) for value in (*x, *y)):
        return None
    points = [(float(a), float(b)) for a, b in zip(x, y)]
    return points if is_vertical else [(b, a) for a, b in points]


def _boxes(parts, x, y):
    boxes, lines = parts
    edges = [_box_edges(box) for box in boxes]
    edges = [found for found in edges if found is not None]
    # The side that all have in common is their width.
    upright = sum(any(_crosses(line, found, True) for line in lines) for found in edges)
    lying = sum(any(_crosses(line, found, False) for line in lines) for found in edges)
    is_vertical = upright >= lying
    across = x if is_vertical else y
    return [_box(across, found, lines, is_vertical) for found in edges], is_vertical


def _box(across, edges, lines, is_vertical):
    (left, right), (first, third) = _turned(edges, is_vertical)
    middle = (left + right) / 2
    median, low, high, points = None, first, third, []
    for line in lines:
        if _crosses(line, edges, is_vertical):
            # A cap of a whisker without length lies on a side.
            found = _segment(line, is_vertical)[0][1]
            median = found if median is None or first < found < third else median
            continue
        places, values = line.get_xdata(), line.get_ydata()
        if not is_vertical:
            places, values = values, places
        if any(isinstance(place, str) or not math.isclose(place, middle, abs_tol=(right - left) * 1e-6) for place in places):
            continue
        values = [float(value) for value in values]
        if line.get_linestyle() in ("None", "none", " ", ""):
            points += values
        elif len(values) == 2:
            low, high = min(low, *values), max(high, *values)
    return {
        "label": across.name_at(middle, right - left),
        "min": low,
        "first_quartile": first,
        "median": median,
        "third_quartile": third,
        "max": high,
        # A mark inside is the mean.
        "outliers": [value for value in points if value < low or value > high],
    }
