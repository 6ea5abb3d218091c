import { expect, test, vi } from "vitest";
import type { SecurityEvent } from "./event.ts";
import { FoldedEvents } from "./folded-events.ts";

function fold(maxGroups = 10) {
  const written: SecurityEvent[] = [];
  const write = (event: SecurityEvent) => void written.push(event);
  return { written, folded: new FoldedEvents({ write, windowMs: 60_000, maxGroups, now: Date.now }) };
}

const refusal = (ip: string, path = "/"): SecurityEvent => ({
  event: "auth_failure",
  ip,
  userAgent: "curl",
  requestId: path,
  principal: null,
  details: { path },
});

test("the first is a line, the others of the window are one, with their number and the latest", () => {
  vi.useFakeTimers({ now: 0 });
  try {
    const { written, folded } = fold();
    for (let i = 0; i < 1000; i++) folded.add(refusal("192.0.2.1", `/${i}`), "192.0.2.1", 1);
    folded.add(refusal("192.0.2.2"), "192.0.2.2", 1);
    expect(written).toEqual([refusal("192.0.2.1", "/0"), refusal("192.0.2.2")]);
    vi.advanceTimersByTime(60_000);
    const last = refusal("192.0.2.1", "/999");
    const counted = { path: "/999", count: 999, since: "1970-01-01T00:00:00.000Z" };
    expect(written.slice(2)).toEqual([{ ...last, details: counted }]);
    // A new window begins with a line again.
    folded.add(refusal("192.0.2.1", "/new"), "192.0.2.1", 1);
    expect(written.at(-1)).toEqual(refusal("192.0.2.1", "/new"));
    folded.flush();
    expect(written).toHaveLength(4);
  } finally {
    vi.useRealTimers();
  }
});

test("a burst is written as it comes, and no event is lost by a flush", () => {
  const { written, folded } = fold();
  for (let i = 0; i < 25; i++) folded.add(refusal("192.0.2.1"), "x", 10);
  folded.flush();
  expect(written).toHaveLength(11);
  expect(written.at(-1)?.details.count).toBe(15);
});

test("more kinds than there is room for are counted together, and name no principal", () => {
  const { written, folded } = fold(10);
  for (let i = 0; i < 5000; i++) folded.add(refusal(`10.0.${i >>> 8}.${i & 255}`), String(i), 1);
  folded.flush();
  expect(written.length).toBe(12);
  expect(written.slice(10)).toMatchObject([
    { ip: null, principal: null },
    { ip: null, details: { count: 4989 } },
  ]);
});

test("a burst of events that hold much is written up to a size, and the rest is counted", () => {
  const { written, folded } = fold();
  const details = { tool: "f", arguments: "x".repeat(2 ** 20) };
  for (let i = 0; i < 50; i++) folded.add({ ...refusal("192.0.2.1"), event: "tool_call", details }, "x", 100);
  expect(written).toHaveLength(8);
  folded.flush();
  expect(written.at(-1)?.details.count).toBe(42);
});
