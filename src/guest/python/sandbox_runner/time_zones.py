"""Time zones for Python's `zoneinfo`, which has none of its own here: IANA's, from the file beside this one."""

import base64
import io
import zlib

_places = {}
_packed = b""


def _load():
    global _packed
    if not _places:
        with open(f"{__file__.rpartition('/')[0]}/time_zones.txt") as file:
            index, _, packed = zlib.decompress(base64.b64decode(file.read().partition("\n")[2])).partition(b"\0")
        _packed = packed
        for line in index.decode().splitlines():
            name, start, length = line.split(" ")
            _places[name] = (int(start), int(length))
    return _places


def adapt(module):
    """`zoneinfo._common`. An installed package `tzdata` goes first: it may be newer."""
    from importlib.util import find_spec

    from_package = module.load_tzdata

    def load_tzdata(key):
        if find_spec("tzdata") is not None:
            return from_package(key)
        place = _load().get(key)
        if place is None:
            raise module.ZoneInfoNotFoundError(f"No time zone found with key {key}")
        start, length = place
        return io.BytesIO(_packed[start : start + length])

    module.load_tzdata = load_tzdata


def adapt_list(module):
    """`zoneinfo._tzpath`."""
    elsewhere = module.available_timezones

    def available_timezones():
        """Returns a set containing all available time zones."""
        return elsewhere() | {name for name in _load() if name != "Factory" and not name.startswith(("posix", "right"))}

    module.available_timezones = available_timezones
    import zoneinfo

    zoneinfo.available_timezones = available_timezones
