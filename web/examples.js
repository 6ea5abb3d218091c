/** Code to begin with. All of it runs on the standard library alone. */
export const EXAMPLES = {
  Hello: `name = "world"
print(f"Hello, {name}!")

# The value of the last expression is the result.
[n * n for n in range(10)]
`,
  "Output while it runs": `import asyncio

for step in range(1, 6):
    print(f"step {step} of 5")
    await asyncio.sleep(0.4)

"done"
`,
  "Write and read a file": `import csv
from pathlib import Path

rows = [("city", "inhabitants"), ("Oslo", 717_710), ("Bergen", 291_940), ("Trondheim", 214_565)]
with open("cities.csv", "w", newline="") as file:
    csv.writer(file).writerows(rows)

# The file is still there in the next run.
print(Path("cities.csv").read_text())
with open("cities.csv", newline="") as file:
    sum(int(row["inhabitants"]) for row in csv.DictReader(file))
`,
  "Ask for input": `name = input("What is your name? ")
print(f"Hello, {name}!")
`,
  "Show a picture": `class Bars:
    def __init__(self, values):
        self.values = values

    def _repr_svg_(self):
        bars = "".join(
            f'<rect x="{i * 44 + 8}" y="{170 - v}" width="36" height="{v}" rx="4" fill="hsl({200 + i * 18} 65% 52%)"/>'
            for i, v in enumerate(self.values)
        )
        return f'<svg xmlns="http://www.w3.org/2000/svg" width="360" height="180">{bars}</svg>'


display(Bars([40, 75, 120, 160, 140, 95, 60, 30]))
`,
  "An error": `def average(values):
    return sum(values) / len(values)

average([3, 4, 5])
average([])
`,
};
