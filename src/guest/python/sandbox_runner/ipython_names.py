"""Every module of the stand-in for IPython: all have all of its names."""

from sandbox_runner.ipython_display import *  # noqa: F403
from sandbox_runner.ipython_display import __all__ as __all__

__version__ = "9.0.0"

if __name__ == "IPython":
    # Not the function of that name.
    import IPython.display  # noqa: F401
