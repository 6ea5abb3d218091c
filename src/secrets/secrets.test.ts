import { mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { readOperatorSecrets } from "./operator-secrets.ts";
import { Seal } from "./seal.ts";
import { DiskSecrets } from "./secret-records.ts";
import { Secrets } from "./secrets.ts";
import { describeRecords, KEY, OTHER_KEY } from "./testing/records-contract.ts";

const folder = path.join(mkdtempSync(path.join(tmpdir(), "secrets-")), "secrets");

describe("on a disk", () => {
  describeRecords(() => new DiskSecrets(folder));

  test("no value is there in plain text, and no other user of the machine reads the files", async () => {
    const secrets = new Secrets({ operator: new Map(), records: new DiskSecrets(folder), seal: new Seal(KEY) });
    await secrets.put("alice", "PLAIN", "findable-text", null);
    const files = readdirSync(folder).map((name) => path.join(folder, name));
    const texts = files.map((file) => readFileSync(file, "utf8")).join("");
    expect(texts).toContain("PLAIN");
    for (const form of ["findable-text", Buffer.from("findable-text").toString("base64")]) {
      expect(texts).not.toContain(form);
    }
    expect(statSync(folder).mode & 0o077).toBe(0);
    for (const file of files) expect(statSync(file).mode & 0o077).toBe(0);
  });
});

describe("a secret is refused", () => {
  const secrets = new Secrets({ operator: new Map(), records: new DiskSecrets(folder), seal: new Seal(KEY) });
  test.each([
    ["with a line end", "A", "abcdefgh\r\nX: 1", "has a line end"],
    ["with a line feed at its end", "A", "abcdefgh\n", "has a line end"],
    ["with a null", "A", "abcdefgh\0", "has a line end"],
    ["with what no header has", "A", "abcdefgh€", "has a line end"],
    ["that is short", "A", "1234567", "shorter than 8"],
    ["that is long", "A", "x".repeat(8193), "longer than 8192"],
    ["with a space before it", "A", " abcdefgh", "begins or ends with a space"],
    ["of no name", "", "abcdefgh", "Invalid secret name"],
    ["of a name with a slash", "a/b", "abcdefgh", "Invalid secret name"],
    ["of a name that objects have", "__proto__", "abcdefgh", "Invalid secret name"],
    ["of a long name", "a".repeat(65), "abcdefgh", "Invalid secret name"],
  ])("%s", async (_what, name, value, message) => {
    const put = secrets.put("alice", name, value, null);
    await expect(put).rejects.toMatchObject({ code: "invalid_secret", message: expect.stringContaining(message) });
    await expect(put).rejects.not.toMatchObject({ message: expect.stringContaining("abcdefgh") });
  });

  test("for a host with a wildcard", async () => {
    await expect(secrets.put("alice", "A", "abcdefgh", ["*.example.com"])).rejects.toMatchObject({
      code: "invalid_secret",
    });
  });
});

describe("the operator's secrets", () => {
  const file = path.join(path.dirname(folder), "mounted");
  writeFileSync(file, "from-a-file\n");
  const operator = readOperatorSecrets({
    SECRETS: JSON.stringify({ OWN: "operator's own", FILED: { file } }),
    SECRETS_FILE: JSON.stringify({
      SHARED: { value: "everyone's key", hosts: ["api.example.com"] },
      FOR_ALICE: { value: "key for alice", hosts: ["api.example.com"], principals: ["alice"] },
    }),
  });
  const secrets = new Secrets({ operator, records: new DiskSecrets(folder), seal: new Seal(KEY) });
  const origin = "https://api.example.com";

  test("go where the operator's rules say", async () => {
    expect(await secrets.reveal("zoe", "OWN", "operator", "https://any.example")).toBe("operator's own");
    expect(secrets.operatorValue("FILED")).toBe("from-a-file");
    expect(secrets.operatorValue("NONE")).toBe(null);
  });

  test("are for rules of callers only where the operator has named host and principal", async () => {
    expect(await secrets.reveal("zoe", "SHARED", "caller", origin)).toBe("everyone's key");
    expect(await secrets.reveal("alice", "FOR_ALICE", "caller", origin)).toBe("key for alice");
    for (const [name, to] of [
      ["OWN", origin],
      ["FOR_ALICE", origin],
      ["SHARED", "https://evil.example"],
    ] as const) {
      const message = `There is no secret ${name} that may be sent to ${to}.`;
      await expect(secrets.reveal("zoe", name, "caller", to)).rejects.toMatchObject({
        code: "unknown_secret",
        message,
      });
    }
  });

  test("a caller's of the same name is used in the caller's rules, and not in the operator's", async () => {
    await secrets.put("yan", "OWN", "a value of yan's", null);
    expect(await secrets.reveal("yan", "OWN", "caller", origin)).toBe("a value of yan's");
    expect(await secrets.reveal("yan", "OWN", "operator", origin)).toBe("operator's own");
    await secrets.put("yan", "TOKEN_OF_EACH", "yan's token", null);
    expect(await secrets.reveal("yan", "TOKEN_OF_EACH", "operator", origin)).toBe("yan's token");
  });

  test.each([
    ["no JSON", '{"A": "hidden-value"', "cannot be read as JSON"],
    ["no object", '["hidden-value"]', "has another form"],
    ["a number", '{"A": 12345678, "B": "hidden-value"}', '"A" has another form'],
    ["neither value nor file", '{"A": {}}', "needs a value or a file"],
    ["a value and a file", '{"A": {"value": "hidden-value", "file": "x"}}', "needs a value or a file"],
    ["a file that is not there", '{"A": {"file": "/nowhere"}}', "the file of"],
    ["a line end", '{"A": "hidden-value\\n"}', "has a line end"],
    ["a short one", '{"A": "hidden"}', "shorter than 8"],
    ["a wildcard", '{"A": {"value": "hidden-value", "hosts": ["*"]}}', "is not a host"],
    ["a name that is none", '{"a b": "hidden-value"}', "is no name"],
  ])("with %s are refused, and not repeated", (_what, text, message) => {
    const readThem = () => readOperatorSecrets({ SECRETS: text });
    expect(readThem).toThrow(message);
    expect(readThem).not.toThrow("hidden");
  });

  test("one that is given twice is refused", () => {
    const both = () => readOperatorSecrets({ SECRETS: '{"A": "value one"}', SECRETS_FILE: '{"A": "value two"}' });
    expect(both).toThrow('"A" is given twice');
  });
});

test.each(["short", "0".repeat(63), "zz".repeat(32), Buffer.alloc(31).toString("base64"), `${KEY},x`])(
  "%j is no key, and is not repeated",
  (text) => {
    expect(() => new Seal(text)).toThrow("it is not 32 bytes");
    expect(() => new Seal(text)).not.toThrow(text.slice(0, 20));
  },
);

test("what is sealed is not the same twice, and does not open when a bit of it is changed", () => {
  const seal = new Seal(OTHER_KEY);
  const sealed = seal.seal("the value", "owner");
  expect(seal.seal("the value", "owner").text).not.toBe(sealed.text);
  expect(seal.open(sealed, "owner")).toBe("the value");
  const flipped = (text: string) => {
    const bytes = Buffer.from(text, "base64");
    bytes[0] = (bytes[0] as number) ^ 1;
    return bytes.toString("base64");
  };
  for (const member of ["nonce", "tag", "text"] as const) {
    expect(seal.open({ ...sealed, [member]: flipped(sealed[member]) }, "owner")).toBe(null);
  }
  expect(
    seal.open({ ...sealed, tag: Buffer.from(sealed.tag, "base64").subarray(0, 4).toString("base64") }, "owner"),
  ).toBe(null);
  expect(seal.open(sealed, "another")).toBe(null);
});
