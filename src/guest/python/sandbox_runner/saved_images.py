"""Shows the images that Pillow saves to a path, in sessions that ask for it: E2B's sandboxes do, and code written for them counts on it."""

import functools
import sys

from .display import display

_is_on = False


def begin():
    """Called when the session begins, before its code."""
    global _is_on
    _is_on = True
    if "PIL.Image" in sys.modules:
        adapt(sys.modules["PIL.Image"])


def adapt(module):
    """Called when `PIL.Image` is there."""
    if not _is_on:
        return
    save = module.Image.save

    @functools.wraps(save)
    def save_and_show(image, fp, format=None, **parameters):
        if isinstance(fp, str):
            display(image)
        return save(image, fp, format, **parameters)

    module.Image.save = save_and_show
