"""Packs the time zones that Python's `zoneinfo` has in the sandbox: `python3 scripts/pack-time-zones.py tzdata-….whl`.

The wheel is the Python package `tzdata`: IANA's database, which is in the public domain, compiled. The file that comes out is part
of the repository, because a sandbox has neither a network nor the host's files. The same wheel gives the same file.
"""

import base64
import pathlib
import sys
import zipfile
import zlib

TARGET = pathlib.Path(__file__).parent.parent / "src/guest/python/sandbox_runner/time_zones.txt"
FOLDER = "tzdata/zoneinfo/"


def main():
    zones = {}
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        for name in wheel.namelist():
            data = wheel.read(name)
            if name.startswith(FOLDER) and data.startswith(b"TZif"):
                zones[name.removeprefix(FOLDER)] = data
        version = wheel.read("tzdata/zoneinfo/tzdata.zi").split(b"\n", 1)[0].split()[-1].decode()
    places = {}
    packed = bytearray()
    for data in (zones[name] for name in sorted(zones)):
        if data not in places:
            places[data] = len(packed)
            packed += data
    index = "\n".join(f"{name} {places[data]} {len(data)}" for name, data in sorted(zones.items()))
    content = zlib.compress(index.encode() + b"\0" + packed, 9)
    note = f"IANA time zones {version}, public domain; made by scripts/pack-time-zones.py"
    TARGET.write_text(f"{note}\n{base64.b64encode(content).decode()}\n")
    print(f"{len(zones)} zones of {version}, {TARGET.stat().st_size} bytes")


main()
