/** A program that the servers are asked to run. Each prints, so that every server can show its answer in `stdout`. */
export interface Program {
  readonly name: string;
  readonly code: string;
  /** What `stdout` must be; a reply without it fails the benchmark. */
  readonly stdout: string;
}

const ORDERS = `import json
import re
import statistics
from collections import defaultdict
from dataclasses import dataclass

TEXT = """
2026-03-01 ada    3 x keyboard @ 49.90
2026-03-01 grace  1 x monitor @ 219.00
2026-03-02 ada    2 x cable @ 7.50
2026-03-02 linus  12 x sticker @ 0.80
2026-03-03 grace  2 x keyboard @ 49.90
2026-03-04 linus  1 x keyboard @ 49.90
"""

@dataclass
class Order:
    day: str
    customer: str
    count: int
    item: str
    price: float

pattern = re.compile(r"(\\S+)\\s+(\\w+)\\s+(\\d+) x (\\w+) @ ([\\d.]+)")
orders = [Order(d, c, int(n), i, float(p)) for d, c, n, i, p in pattern.findall(TEXT)]
totals = defaultdict(float)
for order in orders:
    totals[order.customer] += order.count * order.price
report = {name: round(total, 2) for name, total in sorted(totals.items())}
report["median"] = round(statistics.median(o.count * o.price for o in orders), 2)
print(json.dumps(report))
`;

export const PROGRAMS: readonly Program[] = [
  { name: "`1+1`", code: "print(1+1)", stdout: "2\n" },
  {
    name: "30 lines: re, dataclass, statistics, json",
    code: ORDERS,
    stdout: '{"ada": 164.7, "grace": 318.8, "linus": 59.5, "median": 74.85}\n',
  },
];

/** Of `bench/environments.ts`: the name is the package's. */
const PACKAGE_PROGRAMS: readonly Program[] = [
  { name: "numpy", code: "import numpy as np\nprint(int(np.arange(10).sum()))", stdout: "45\n" },
  { name: "pandas", code: "import pandas as pd\nprint(int(pd.Series(range(10)).sum()))", stdout: "45\n" },
];

/** All that `load` can be told to send. */
export const EVERY_PROGRAM: readonly Program[] = [...PROGRAMS, ...PACKAGE_PROGRAMS];
