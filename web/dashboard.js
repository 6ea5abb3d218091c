/** @import { DashboardStatistics, RecentExecution } from "../src/statistics/snapshot.ts" */
import { ApiError, describe, post, send } from "./api.js";
import { Charts } from "./charts.js";
import { confirmed } from "./dialogs.js";
import { byId, element } from "./elements.js";
import { readEvents } from "./event-stream.js";
import { formatMs } from "./format.js";

const HOUR_MS = 3_600_000;
const MAX_RETRY_MS = 15_000;

const charts = new Charts(byId("trend-chart", HTMLCanvasElement), byId("outcome-chart", HTMLCanvasElement));
const pauseButton = byId("pause", HTMLButtonElement);
const count = new Intl.NumberFormat();
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium", hourCycle: "h23" });
const hour = new Intl.DateTimeFormat(undefined, { timeStyle: "short", hourCycle: "h23" });
const day = new Intl.DateTimeFormat(undefined, {
  day: "numeric",
  month: "short",
  hour: "2-digit",
  minute: "2-digit",
  hourCycle: "h23",
});

/** @type {AbortController | undefined} */
let following;

/** Shows the numbers as they change, until it is paused; a lost connection is taken up again. */
async function follow() {
  following = new AbortController();
  const { signal } = following;
  let retryMs = 1000;
  while (!signal.aborted) {
    try {
      for await (const { stats, timestamp } of readEvents(await send("/api/dashboard/stats/stream", { signal }))) {
        show(stats, new Date(timestamp));
        showConnection("Live", "good");
        retryMs = 1000;
      }
      showConnection("Connection lost, trying again…", "bad");
    } catch (error) {
      if (signal.aborted) return;
      const refused = error instanceof ApiError && error.status !== 429 && error.status < 500;
      showConnection(refused ? describe(error) : `${describe(error)} Trying again…`, "bad");
      if (refused) return pause();
    }
    await new Promise((resolve) => setTimeout(resolve, retryMs));
    retryMs = Math.min(retryMs * 2, MAX_RETRY_MS);
  }
}

function pause() {
  following?.abort();
  following = undefined;
  showPaused(true);
}

/** @param {boolean} paused */
function showPaused(paused) {
  pauseButton.setAttribute("aria-pressed", String(paused));
  pauseButton.textContent = paused ? "Resume" : "Pause";
}

/**
 * @param {string} text
 * @param {"good" | "bad" | "busy"} state
 */
function showConnection(text, state) {
  const connection = byId("connection", HTMLElement);
  connection.dataset.state = state;
  // Setting the same text again would be read out again.
  if (connection.textContent !== text) connection.textContent = text;
}

/**
 * @param {DashboardStatistics} stats
 * @param {Date} now the server's clock
 */
function show(stats, now) {
  const { overview, recent } = stats;
  const { p50, p95 } = overview.executionTimePercentiles;
  const none = overview.totalExecutions === 0;
  setText("total", count.format(overview.totalExecutions));
  setText("last-hour", `${count.format(recent.lastHourExecutions)} in the last hour`);
  setText("success-rate", none ? "–" : `${overview.successRate} %`);
  setText("recent-success", recent.lastHourExecutions === 0 ? "" : `${recent.recentSuccessRate} % in the last hour`);
  setText("average-time", none ? "–" : formatMs(overview.averageExecutionTime));
  setText("percentiles", none ? "" : `median ${formatMs(p50)}, p95 ${formatMs(p95)}`);
  setText("uptime", overview.uptimeHuman);
  setText("started", `since ${day.format(new Date(now.getTime() - overview.uptimeSeconds * 1000))}`);
  setText("packages", count.format(recent.packagesInstalled));
  setText("uploads", count.format(recent.filesUploaded));

  const hours = stats.hourlyTrend.map((_, i) => hourLabel(now, stats.hourlyTrend.length - 1 - i));
  const successPercent = none ? null : Number(overview.successRate);
  charts.showTrend(hours, stats.hourlyTrend);
  charts.showOutcome(successPercent);

  fill(
    "trend-rows",
    stats.hourlyTrend.map((executions, i) => [hours[i] ?? "", executions]),
  );
  fill(
    "outcome-rows",
    successPercent === null
      ? []
      : [
          ["Succeeded", `${successPercent.toFixed(1)} %`],
          ["Failed", `${(100 - successPercent).toFixed(1)} %`],
        ],
  );
  fill(
    "error-rows",
    stats.topErrors.map(({ error, count }) => [error, count]),
  );
  fill(
    "address-rows",
    stats.topIPs.map(({ ip, count }) => [ip, count]),
  );
  fill(
    "agent-rows",
    stats.userAgents.map(({ agent, count }) => [agent === "" ? "(none)" : agent, count]),
  );
  const rows = stats.recentExecutions.map(recentRow);
  byId("recent-rows", HTMLElement).replaceChildren(...(rows.length > 0 ? rows : [emptyRow(4)]));
}

/**
 * @param {Date} now
 * @param {number} hoursAgo
 */
function hourLabel(now, hoursAgo) {
  const startMs = Math.floor(now.getTime() / HOUR_MS) * HOUR_MS;
  return hour.format(new Date(startMs - hoursAgo * HOUR_MS));
}

/**
 * @param {string} id
 * @param {string} text
 */
function setText(id, text) {
  byId(id, HTMLElement).textContent = text;
}

/**
 * @param {string} id of a table's body
 * @param {readonly (readonly [string, string | number])[]} rows
 */
function fill(id, rows) {
  const filled = rows.map(([name, amount]) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, name),
      element("td", { class: "number" }, typeof amount === "number" ? count.format(amount) : amount),
    ),
  );
  byId(id, HTMLElement).replaceChildren(...(filled.length > 0 ? filled : [emptyRow(2)]));
}

/** @param {RecentExecution} execution */
function recentRow({ timestamp, principal, success, error, executionTime }) {
  return element(
    "tr",
    {},
    element(
      "th",
      { scope: "row", class: "nowrap" },
      element("time", { datetime: timestamp }, clock.format(new Date(timestamp))),
    ),
    element("td", {}, principal),
    element("td", { class: success ? "good" : "bad" }, success ? "Succeeded" : (error ?? "Failed")),
    element("td", { class: "number" }, formatMs(executionTime)),
  );
}

/** @param {number} columns */
function emptyRow(columns) {
  return element("tr", {}, element("td", { class: "empty", colspan: columns }, "None yet"));
}

pauseButton.addEventListener("click", () => {
  if (following) {
    pause();
    showConnection("Paused", "busy");
  } else {
    showPaused(false);
    showConnection("Connecting…", "busy");
    follow();
  }
});

byId("clear", HTMLButtonElement).addEventListener("click", async () => {
  const text = "All counters, the trend and the list of recent executions start from zero. This cannot be undone.";
  if (!(await confirmed("Clear the statistics?", text, "Clear"))) return;
  try {
    await post("/api/dashboard/stats/clear");
  } catch (error) {
    showConnection(describe(error), "bad");
  }
});

await follow();
