import { expect, test } from "vitest";
import { loadConfig } from "../shared/settings.ts";
import { toolShares } from "./principals.ts";

const SEVERAL = "alice:alice-key-of-sixteen,bob:bob-key-of-sixteen-x";

const sharesOf = (settings: Record<string, string>) => {
  const { maxExecutions, maxOfPrincipal } = toolShares(loadConfig(settings));
  return [maxExecutions, maxOfPrincipal];
};

test.each([
  ["1", 0, 1],
  // One place for everybody: SECURITY.md says so.
  ["2", 1, 1],
  ["3", 2, 1],
  ["4", 3, 2],
  ["9", 8, 4],
])("of %s sandboxes %i may wait for clients, %i of one principal of several", (POOL_SIZE, all, ofPrincipal) => {
  expect(sharesOf({ POOL_SIZE, API_KEYS: SEVERAL })).toEqual([all, ofPrincipal]);
});

test("from three sandboxes on another principal's place is always left, and the settings may narrow both", () => {
  for (let size = 3; size <= 32; size++) {
    const [all = 0, ofPrincipal = 0] = sharesOf({ POOL_SIZE: String(size), API_KEYS: SEVERAL });
    expect(ofPrincipal).toBeLessThan(all);
  }
  const narrowed = { POOL_SIZE: "9", API_KEYS: SEVERAL, TOOL_EXECUTIONS_MAX: "4" };
  expect(sharesOf(narrowed)).toEqual([4, 2]);
  expect(sharesOf({ ...narrowed, TOOL_EXECUTIONS_PER_PRINCIPAL: "1" })).toEqual([4, 1]);
});
