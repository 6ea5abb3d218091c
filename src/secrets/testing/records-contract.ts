import { expect, test } from "vitest";
import { Seal } from "../seal.ts";
import type { SecretRecords } from "../secret-records.ts";
import { Secrets } from "../secrets.ts";

export const KEY = "00".repeat(32);
export const OTHER_KEY = Buffer.alloc(32, 1).toString("base64");
const HOST = "https://api.example.com";

/** What every store of secrets does. @param open the same records again, as another server or a restarted one has them. */
export function describeRecords(open: () => SecretRecords): void {
  const secrets = (keys = KEY) => new Secrets({ operator: new Map(), records: open(), seal: new Seal(keys) });

  test("a secret is revealed to rules of its owner, on every server, and to no one else's", async () => {
    await secrets().put("alice", "TOKEN", "alice's value", null);
    await secrets().put("bob", "TOKEN", "bob's own value", ["api.example.com"]);
    expect(await secrets().reveal("alice", "TOKEN", "caller", "https://any.example")).toBe("alice's value");
    expect(await secrets().reveal("bob", "TOKEN", "caller", HOST)).toBe("bob's own value");
    expect(await secrets().list("bob")).toEqual([{ name: "TOKEN", hosts: [HOST] }]);
    expect(await secrets().list("carol")).toEqual([]);
    const unknown = { code: "unknown_secret", message: `There is no secret TOKEN that may be sent to ${HOST}.` };
    await expect(secrets().reveal("carol", "TOKEN", "caller", HOST)).rejects.toMatchObject(unknown);
    await expect(secrets().reveal("bob", "TOKEN", "caller", "https://evil.example")).rejects.toMatchObject({
      code: "secret_host",
    });
  });

  test("it is replaced and deleted", async () => {
    await secrets().put("dora", "A", "first value", null);
    await secrets().put("dora", "A", "second value", null);
    expect(await secrets().reveal("dora", "A", "caller", HOST)).toBe("second value");
    await secrets().delete("dora", "A");
    await expect(secrets().delete("dora", "A")).rejects.toMatchObject({ code: "secret_not_found" });
    await expect(secrets().get("dora", "A")).rejects.toMatchObject({ code: "secret_not_found" });
  });

  test("a hundred of a principal, and no more; one that is there can still be replaced", async () => {
    const own = secrets();
    for (let i = 0; i < 100; i++) await own.put("eve", `S${i}`, "a value of hers", null);
    await expect(own.put("eve", "S100", "a value of hers", null)).rejects.toMatchObject({ code: "secret_limit" });
    await own.put("eve", "S99", "another value", null);
    await own.delete("eve", "S0");
    await own.put("eve", "S100", "a value of hers", null);
    expect(await own.list("eve")).toHaveLength(100);
  });

  test("many at a time are all kept", async () => {
    const own = secrets();
    await Promise.all(Array.from({ length: 20 }, (_, i) => own.put("fay", `S${i}`, `value ${i} of hers`, null)));
    expect(await own.list("fay")).toHaveLength(20);
  });

  test("another key opens none of them; a new key before the old one opens all", async () => {
    await secrets().put("gus", "OLD", "the old value", null);
    await expect(secrets(OTHER_KEY).reveal("gus", "OLD", "caller", HOST)).rejects.toMatchObject({
      code: "secret_unreadable",
    });
    const both = secrets(`${OTHER_KEY}, ${KEY}`);
    await both.put("gus", "NEW", "the new value", null);
    expect(await both.reveal("gus", "OLD", "caller", HOST)).toBe("the old value");
    expect(await secrets(OTHER_KEY).reveal("gus", "NEW", "caller", HOST)).toBe("the new value");
    await expect(secrets("").put("gus", "X", "some value", null)).rejects.toMatchObject({ code: "secrets_off" });
  });

  test("a record that is given to another principal, name or host does not open", async () => {
    const records = open();
    await secrets().put("hal", "A", "the value of hal", ["api.example.com"]);
    const record = await records.get("hal", "A");
    if (!record) throw new Error("it is not there");
    await records.put("ida", "A", record, 100);
    await records.put("hal", "B", record, 100);
    await records.put("hal", "C", { ...record, hosts: null }, 100);
    for (const [principal, name] of [
      ["ida", "A"],
      ["hal", "B"],
      ["hal", "C"],
    ] as const) {
      await expect(secrets().reveal(principal, name, "caller", HOST)).rejects.toMatchObject({
        code: "secret_unreadable",
      });
    }
  });
}
