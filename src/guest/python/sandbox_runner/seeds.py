"""Where the shared random generators keep their state, for the host to seed them from outside: ``guest/interpreter/generators.ts``.

To seed one in Python takes a tenth of a short execution. The host writes random words over the state instead, which it knows to be the same
memory in every sandbox of the image. What it is told here it compares with that memory before it relies on it.
"""

import os
import random
import sys
from array import array

_WORDS = 624
"""State of a Mersenne Twister, and the position at which it makes its next words."""

places = b""
"""32-bit words for each generator: address and size of the object that its state is in, whether the position stands behind the state (1) or before it (0),
the state, the position."""


def reseed():
    """Interpreters restored from one image would otherwise all draw the same numbers."""
    random.seed(int.from_bytes(os.urandom(32)))
    numpy = sys.modules.get("numpy")
    if numpy is not None and "numpy.random" in sys.modules:
        # An array, not a number: numbers differ in size, and what follows would lie elsewhere in memory.
        numpy.random.seed(numpy.frombuffer(os.urandom(32), numpy.uint32))


def remember():
    """Called before a memory image is taken. Seeds them as well: a number that one has kept for its next call is gone, too."""
    global places
    reseed()
    try:
        places = _places()
    except (AttributeError, KeyError, TypeError, ValueError):
        # Generators of another kind: the host has each execution seed them here.
        places = b""


def _places():
    words = array("I", _describe(random._inst, 0, random.getstate()[1]))
    if "numpy.random" in sys.modules:
        import numpy

        generator = numpy.random.mtrand._rand._bit_generator
        state = generator.state["state"]
        words.extend(_describe(generator, 1, [*map(int, state["key"]), int(state["pos"])]))
    return words.tobytes()


def _describe(thing, is_behind, state):
    if len(state) != _WORDS + 1:
        raise ValueError("a generator of another kind")
    return [id(thing), type(thing).__basicsize__, is_behind, *state]
