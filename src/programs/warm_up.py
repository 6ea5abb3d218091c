# Uses what most programs use, so that V8 has compiled it before the first execution. Its effects are rewound.
import dataclasses
import json
import math
import random
import re
import statistics
import sys
from collections import Counter, defaultdict


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.5

    def distance(self, *others, **named):
        return max((abs(self.x - other.x), other.y) for other in others)


def numbers(count):
    for number in range(count):
        yield number * 2 if number % 3 else number // 2


try:
    {}["missing"]
except KeyError as error:
    print(f"{error!r}: {1 / 3:.3f} {'é':>5} {10**20:,}")
pairs = sorted(re.findall(r"(\w+)=(\d+)", "a=1 b=22 c=333"), key=lambda pair: -int(pair[1]))
totals = defaultdict(list)
for name, count in pairs:
    totals[name].append(float(count))
data = json.loads(json.dumps({"pairs": pairs, "totals": totals, "none": None, "text": "x\ny"}))
print(Point(1).distance(Point(3), Point(5, 2.5)), sum(numbers(50)), Counter("abracadabra").most_common(2))
print(statistics.mean([1, 2, 6]), math.sqrt(2), random.choice([1, 2]), " ".join(reversed("a b".split())))
print([1, 2, 3][::-1], (1, 2) + (3,), "%s %d" % ("a", 2), len(set(range(9)) & {1, 2}), list(zip("ab", range(2))))
with open("/tmp/warm-up", "w") as file:
    file.write("text\n")
print(open("/tmp/warm-up").read().strip().upper().replace("T", "t"), isinstance(1, int), data["none"] is None)

# Of packages only what an environment has imported already.
if "numpy" in sys.modules:
    import numpy

    grid = numpy.arange(12.0).reshape(3, 4)
    print(grid, grid.sum(), grid.mean(axis=0), (grid * 2 + 1)[grid > 5], numpy.linspace(0, 1, 3), grid @ grid.T)
if "pandas" in sys.modules:
    import pandas

    table = pandas.DataFrame({"name": ["a", "b", "a"], "count": [1, 2, 3]})
    print(table, table.describe(), table.groupby("name")["count"].sum(), table[table["count"] > 1])

# The last, since a caller sees most often one of these, and an error's traceback takes most.
try:
    compile("x = (", "<warm-up>", "exec")
except SyntaxError as error:
    print(error)
1 / 0
