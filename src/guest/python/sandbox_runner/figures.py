"""A figure as a PNG that is cropped to what is drawn, as `savefig(bbox_inches="tight")` crops it."""

import io
import math
import sys


def to_png(figure):
    """Return the PNG's bytes. Fonts, layout and drawing are matplotlib's; what it raises is raised."""
    png = io.BytesIO()
    pixels = _drawn_once(figure)
    if pixels is None:
        figure.savefig(png, format="png", bbox_inches="tight")
    else:
        from matplotlib import image

        image.imsave(png, pixels, format="png", origin="upper", dpi=figure.dpi)
    return png.getvalue()


def _drawn_once(figure):
    """Draw once, and crop: `savefig` draws twice, since it moves the figure to where the crop begins.

    Return the pixels (rows, columns, RGBA), or None where that would not be the picture that `savefig` makes: something
    lies beyond the figure's edge, its background is not plain, or a setting or another canvas asks for more than a crop.
    """
    figures = sys.modules.get("matplotlib.figure")
    if figures is None or type(figure) is not figures.Figure:
        return None
    from matplotlib import rcParams
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas, background = figure.canvas, figure.patch
    pad = rcParams["savefig.pad_inches"]
    plain = (
        type(canvas) is FigureCanvasAgg
        and canvas.device_pixel_ratio == 1
        and getattr(figure, "_original_dpi", figure.dpi) == figure.dpi
        and rcParams["savefig.dpi"] == "figure"
        and rcParams["savefig.facecolor"] == rcParams["savefig.edgecolor"] == "auto"
        and not rcParams["savefig.transparent"]
        and isinstance(pad, (int, float))
        and background.get_visible()
        and background.get_facecolor()[3] == 1
        and background.get_linewidth() == 0
    )
    if not plain:
        return None
    saving = canvas._is_saving
    canvas._is_saving = True
    try:
        canvas.draw()
        drawn = figure.get_tightbbox(canvas.renderer)
    finally:
        canvas._is_saving = saving
    width, height = canvas.get_width_height()
    dpi = figure.dpi
    edges = (drawn.x0 * dpi, drawn.y0 * dpi, drawn.x1 * dpi, drawn.y1 * dpi)
    if not all(map(math.isfinite, edges)) or edges[0] < 0 or edges[1] < 0 or edges[2] > width or edges[3] > height:
        return None
    return _crop(canvas.buffer_rgba(), edges, pad * dpi, background.get_facecolor())


def _crop(buffer, edges, pad, color):
    """`edges` are left, bottom, right and top from the lower left, in pixels; what `pad` takes beyond the buffer has `color`."""
    import numpy as np

    pixels = np.asarray(buffer)
    height, width = pixels.shape[:2]
    left, bottom = math.floor(edges[0] - pad), math.floor(edges[1] - pad)
    right, top = math.ceil(edges[2] + pad), math.ceil(edges[3] + pad)
    cropped = np.empty((top - bottom, right - left, 4), np.uint8)
    cropped[:] = [int(part * 255 + 0.5) for part in color]
    first_row, last_row = max(0, height - top), min(height, height - bottom)
    first, last = max(0, left), min(width, right)
    row, column = first_row - (height - top), first - left
    cropped[row : row + last_row - first_row, column : column + last - first] = pixels[first_row:last_row, first:last]
    return cropped
