/** @import { Chart as ChartClass } from "chart.js/auto" */

const GOOD = "--good";
const BAD = "--bad";

/** The bar chart of hours and the doughnut of outcomes, in the page's colours, dark or light. */
export class Charts {
  /** @type {ChartClass<"bar", number[], string>} */
  #trend;
  /** @type {ChartClass<"doughnut", number[], string>} */
  #outcome;

  /**
   * @param {HTMLCanvasElement} trendCanvas
   * @param {HTMLCanvasElement} outcomeCanvas
   */
  constructor(trendCanvas, outcomeCanvas) {
    const Chart = /** @type {{ Chart: typeof ChartClass }} */ (/** @type {unknown} */ (globalThis)).Chart;
    // Numbers change every second; moving bars would only distract.
    Chart.defaults.animation = false;
    Chart.defaults.maintainAspectRatio = false;
    Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
    this.#trend = new Chart(trendCanvas, {
      type: "bar",
      data: { labels: [], datasets: [{ label: "Executions", data: [], borderRadius: 4, maxBarThickness: 28 }] },
      options: {
        plugins: { legend: { display: false } },
        scales: {
          x: { grid: { display: false }, ticks: { maxRotation: 0, autoSkipPadding: 12 } },
          y: { beginAtZero: true, suggestedMax: 4, ticks: { precision: 0 }, border: { display: false } },
        },
      },
    });
    this.#outcome = new Chart(outcomeCanvas, {
      type: "doughnut",
      data: { labels: ["Succeeded", "Failed"], datasets: [{ data: [], borderWidth: 2 }] },
      options: { cutout: "68%", plugins: { legend: { position: "bottom", labels: { boxWidth: 12 } } } },
    });
    this.#paint();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#paint());
  }

  /**
   * @param {readonly string[]} hours
   * @param {readonly number[]} counts
   */
  showTrend(hours, counts) {
    this.#trend.data.labels = [...hours];
    if (this.#trend.data.datasets[0]) this.#trend.data.datasets[0].data = [...counts];
    this.#trend.update();
    const busiest = Math.max(...counts);
    this.#trend.canvas.ariaLabel =
      `Bar chart of executions per hour. ${sum(counts)} in the last 24 hours, ` +
      `${counts.at(-1)} in this hour, at most ${busiest} (${hours[counts.indexOf(busiest)]}).`;
  }

  /** @param {number | null} successPercent null: there was no execution */
  showOutcome(successPercent) {
    const shares = successPercent === null ? [] : [successPercent, Number((100 - successPercent).toFixed(1))];
    if (this.#outcome.data.datasets[0]) this.#outcome.data.datasets[0].data = shares;
    this.#outcome.update();
    this.#outcome.canvas.ariaLabel =
      successPercent === null
        ? "Doughnut chart: no executions yet."
        : `Doughnut chart: ${shares[0]} % succeeded, ${shares[1]} % failed.`;
  }

  /** Chart.js draws pixels, which no style sheet reaches. */
  #paint() {
    // A custom property keeps `light-dark()` as it is written; a colour property resolves it.
    const probe = document.body.appendChild(document.createElement("i"));
    /** @param {string} name */
    const colour = (name) => {
      probe.style.color = `var(${name})`;
      return getComputedStyle(probe).color;
    };
    for (const chart of [this.#trend, this.#outcome]) {
      chart.options.color = colour("--muted");
      chart.options.borderColor = colour("--line");
    }
    for (const scale of Object.values(this.#trend.options.scales ?? {})) {
      if (scale?.ticks) scale.ticks.color = colour("--muted");
      if (scale?.grid) scale.grid.color = colour("--line");
    }
    Object.assign(this.#trend.data.datasets[0] ?? {}, { backgroundColor: colour("--accent") });
    Object.assign(this.#outcome.data.datasets[0] ?? {}, {
      backgroundColor: [colour(GOOD), colour(BAD)],
      borderColor: colour("--surface"),
    });
    probe.remove();
    this.#trend.update();
    this.#outcome.update();
  }
}

/** @param {readonly number[]} numbers */
function sum(numbers) {
  return numbers.reduce((total, number) => total + number, 0);
}
