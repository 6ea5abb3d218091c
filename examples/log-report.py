"""Reads a web server's log in JSON lines and prints a report: traffic, latency and failures of each service."""

import asyncio
import json
import re
import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import datetime

LOG = """
{"at": "2026-03-01T09:00:01Z", "service": "api", "request": "GET /users/17", "status": 200, "ms": 12.5}
{"at": "2026-03-01T09:00:02Z", "service": "api", "request": "GET /users/18", "status": 404, "ms": 3.25}
{"at": "2026-03-01T09:00:02Z", "service": "web", "request": "GET /", "status": 200, "ms": 41.0}
{"at": "2026-03-01T09:00:04Z", "service": "api", "request": "POST /orders", "status": 201, "ms": 88.0}
this line was cut off by a full disk
{"at": "2026-03-01T09:00:07Z", "service": "web", "request": "GET /static/app.css", "status": 304, "ms": 1.5}
{"at": "2026-03-01T09:00:09Z", "service": "api", "request": "GET /users/17", "status": 500, "ms": 950.0}
{"at": "2026-03-01T09:00:12Z", "service": "jobs", "request": "POST /mail/42/send", "status": 202, "ms": 230.0}
{"at": "2026-03-01T09:00:15Z", "service": "jobs", "request": "POST /mail/43/send", "status": 503, "ms": 5000.0}
{"at": "2026-03-01T09:00:16Z", "service": "web", "request": "GET /", "status": 200, "ms": 39.0}
"""


@dataclass(frozen=True, order=True)
class Entry:
    at: datetime
    service: str
    method: str
    route: str
    status: int
    ms: float

    @classmethod
    def parse(cls, line: str) -> "Entry":
        raw = json.loads(line)
        method, path = re.fullmatch(r"([A-Z]+) (/\S*)", raw["request"]).groups()
        route = re.sub(r"/\d+", "/:id", path)
        return cls(datetime.fromisoformat(raw["at"]), raw["service"], method, route, raw["status"], raw["ms"])


async def summarise(service: str, entries: list[Entry]) -> str:
    await asyncio.sleep(0.001)  # Where a real one would ask another system.
    times = [entry.ms for entry in entries]
    failed = sum(entry.status >= 500 for entry in entries)
    return f"{service:<6}{len(entries):>4}{statistics.median(times):>10.2f}{max(times):>10.2f}{failed / len(entries):>8.0%}"


async def main() -> None:
    services, broken = defaultdict(list), []
    for number, line in enumerate(LOG.strip().splitlines(), start=1):
        try:
            entry = Entry.parse(line)
            services[entry.service].append(entry)
        except json.JSONDecodeError as error:
            broken.append(f"line {number}: {error.msg}")
    entries = sorted(entry for group in services.values() for entry in group)
    print(f"{len(entries)} requests in {(entries[-1].at - entries[0].at).total_seconds():.0f} s")
    print(f"{'':<6}{'n':>4}{'median ms':>10}{'max ms':>10}{'failed':>8}")
    print(*await asyncio.gather(*(summarise(*item) for item in sorted(services.items()))), sep="\n")
    for (method, route), count in Counter((entry.method, entry.route) for entry in entries).most_common(3):
        print(f"{count} x {method} {route}")
    print("skipped", *broken)


asyncio.run(main())
