import fc from "fast-check";
import { expect, test } from "vitest";
import { StrikeOut } from "./strike-out.ts";

const SECRET = 'tok/en+"0123';

function struckOut(...values: string[]): StrikeOut {
  const struck = new StrikeOut();
  for (const value of values) struck.add(value);
  return struck;
}

async function* from(chunks: readonly Buffer[]): AsyncGenerator<Buffer> {
  yield* chunks;
}

async function read(struck: StrikeOut, chunks: readonly Buffer[]): Promise<string> {
  const pieces: Buffer[] = [];
  for await (const piece of struck.stream(from(chunks))) pieces.push(piece);
  return Buffer.concat(pieces).toString("latin1");
}

const HARD = "sk+live/Zm9v&YmFy'0<1>23=\"\\`";
const percent = (value: string, kept: RegExp, isUpper = true) =>
  value.replace(/[^A-Za-z0-9]/g, (character) => {
    const hex = character.charCodeAt(0).toString(16);
    return kept.test(character) ? character : `%${isUpper ? hex.toUpperCase() : hex}`;
  });
const escaped = (value: string, characters: RegExp, as: (code: string) => string) =>
  JSON.stringify(value)
    .slice(1, -1)
    .replace(characters, (character) => as(character.charCodeAt(0).toString(16).padStart(4, "0")));
const entities = (value: string, more: Record<string, string> = {}) =>
  value.replace(/\W/g, (character) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", ...more })[character] ?? character);

test.each([
  ["as it is", HARD],
  ["as URLs have it", encodeURIComponent(HARD)],
  ["in lower case", percent(HARD, /^$/, false)],
  ["with / kept, as Python's quote()", percent(HARD, /[-_.~/]/)],
  ["as encodeURI has it", encodeURI(HARD)],
  ["as forms have it", String(new URLSearchParams({ a: HARD })).slice(2)],
  ["as JSON has it", JSON.stringify(HARD).slice(1, -1)],
  ["as PHP's JSON has it", JSON.stringify(HARD).slice(1, -1).replaceAll("/", "\\/")],
  ["as Go's JSON has it", escaped(HARD, /[<>&]/g, (code) => `\\u${code}`)],
  ["as .NET's JSON has it", escaped(HARD, /[<>&'+`]/g, (code) => `\\u${code.toUpperCase()}`)],
  ["as JavaScript has it", escaped(HARD, /[<>&']/g, (code) => `\\x${code.slice(2)}`)],
  ["as XML's text has it", entities(HARD)],
  ["as Python's HTML has it", entities(HARD, { '"': "&quot;", "'": "&#x27;" })],
  ["as Go's HTML has it", entities(HARD, { '"': "&#34;", "'": "&#39;", "+": "&#43;" })],
  ["as Mustache has it", entities(HARD, { '"': "&quot;", "'": "&#39;", "/": "&#x2F;", "`": "&#x60;", "=": "&#x3D;" })],
  ["in base64", Buffer.from(HARD).toString("base64")],
  ["in base64 of URLs", Buffer.from(HARD).toString("base64url")],
  ["in base64 in a URL", encodeURIComponent(Buffer.from(HARD).toString("base64"))],
])("a value is struck out %s", async (_how, form) => {
  const struck = struckOut(HARD);
  expect(struck.text(`a=${form}; b=${form}`)).toBe("a=***; b=***");
  for (const cut of [0, 1, form.length]) {
    const bytes = Buffer.from(`<${form}>`);
    expect(await read(struck, [bytes.subarray(0, cut), bytes.subarray(cut)])).toBe(`<${"*".repeat(form.length)}>`);
  }
});

test.each([
  ["forms", "a b c d e f", "a+b+c+d+e+f"],
  ["UTF-8", "caf\xe9-0123456", Buffer.from("caf\xe9-0123456").toString("latin1")],
  ["URLs in UTF-8", "caf\xe9-0123456", "caf%c3%A9-0123456"],
  ["JSON that is ASCII", "caf\xe9-0123456", "caf\\u00e9-0123456"],
])("and in %s", async (_how, value, form) => {
  expect(await read(struckOut(value), [Buffer.from(`<${form}>`, "latin1")])).toBe(`<${"*".repeat(form.length)}>`);
});

test.each(["base64", "base64url"] as const)(
  "in %s, whatever stands around it, less than a byte remains",
  (encoding) => {
    const value = "token?~0123456789";
    for (const before of ["", "u", "us", "use", "user:", "a-user:"]) {
      for (const after of ["", ":", "\r\n", "abc"]) {
        const whole = Buffer.from(before + value + after).toString(encoding);
        const [head = "", tail = ""] = struckOut(value).text(whole).split("***");
        expect(head.length + tail.length).toBeLessThan(whole.length);
        const known = (text: string, from: number) => Buffer.from(text, encoding).toString("latin1", from);
        // Of what is before it whole bytes, and no character of it.
        expect(known(head, before.length).length).toBe(0);
        const left = tail.replace(/=/g, "").length;
        const whole64 = whole.replace(/=/g, "").length;
        const firstBit = (whole64 - left) * 6;
        expect(firstBit).toBeGreaterThan((before.length + value.length - 1) * 8);
      }
    }
  },
);

test("what only looks like an escape is left as it is", async () => {
  const text = "100% of \\u12 &; &#x; &#99999; &nothing; \\q %zz %";
  expect(struckOut(HARD).text(text)).toBe(text);
  expect(await read(struckOut(HARD), [Buffer.from(text)])).toBe(text);
});

test.each(["toString", "valueOf", "constructor", "__proto__"])("&%s; is no entity", async (name) => {
  const text = `&${name}; &amp;`;
  expect(await read(struckOut(SECRET), [Buffer.from(text)])).toBe(text);
});

test("a value that is added while a stream goes on is struck out of the rest", async () => {
  const struck = new StrikeOut();
  const added = Promise.withResolvers<void>();
  async function* source(): AsyncGenerator<Buffer> {
    yield Buffer.from(`${SECRET},`);
    await added.promise;
    yield Buffer.from(SECRET.slice(0, 5));
    yield Buffer.from(SECRET.slice(5));
  }
  let text = "";
  for await (const piece of struck.stream(source())) {
    text += piece;
    struck.add(SECRET);
    added.resolve();
  }
  expect(text).toBe(`${SECRET},${"*".repeat(SECRET.length)}`);
});

test("of two values of which one begins the other nothing is left, however a stream is cut", async () => {
  const whole = Buffer.from("<abcdefghij>");
  for (let cut = 0; cut < whole.length; cut++) {
    const struck = struckOut("abcdefgh", "abcdefghij");
    expect(await read(struck, [whole.subarray(0, cut), whole.subarray(cut)])).toBe("<**********>");
  }
});

test("a value at the end of what is given on goes on in what is held", async () => {
  const text = `${"x".repeat(100)}${SECRET}${"y".repeat(100)}`;
  for (let cut = 90; cut < 200; cut++) {
    const chunks = [Buffer.from(text.slice(0, cut)), Buffer.from(text.slice(cut))];
    expect(await read(struckOut(SECRET), chunks)).toBe(text.replace(SECRET, "*".repeat(SECRET.length)));
  }
});

test("of two values of which one is in the other nothing is left", () => {
  expect(struckOut("abcdefgh", "abcdefghij").text("abcdefghij abcdefgh")).toBe("*** ***");
});

test("a stream is as long as before, has no value in it however it is cut, and is otherwise unchanged", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.oneof(fc.constant(SECRET), fc.string({ unit: "binary-ascii", maxLength: 30 }), fc.constant("tok/en")),
      ),
      fc.array(fc.nat({ max: 40 })),
      async (parts, cuts) => {
        const whole = parts.join("");
        const chunks: Buffer[] = [];
        let at = 0;
        for (const cut of cuts) {
          chunks.push(Buffer.from(whole.slice(at, at + cut), "latin1"));
          at += cut;
        }
        chunks.push(Buffer.from(whole.slice(at), "latin1"));
        const forms = [SECRET, JSON.stringify(SECRET).slice(1, -1)];
        const expected = forms
          .sort((a, b) => b.length - a.length)
          .reduce((text, form) => text.replaceAll(form, "*".repeat(form.length)), whole);
        expect(await read(struckOut(SECRET), chunks)).toBe(expected);
      },
    ),
    { numRuns: 300 },
  );
});

test("what is held back goes on when nothing more comes, whatever it is", async () => {
  const struck = struckOut(SECRET);
  const end = Promise.withResolvers<void>();
  async function* stalls(text: string): AsyncGenerator<Buffer> {
    yield Buffer.from(text);
    await end.promise;
  }
  for (const text of ["event: 1\n\n", SECRET.slice(0, -1)]) {
    const iterator = struck.stream(stalls(text));
    let received = "";
    while (received.length < text.length) received += (await iterator.next()).value;
    expect(received).toBe(text);
  }
  end.resolve();
});

test("a failure comes after what came before it", async () => {
  async function* breaks(): AsyncGenerator<Buffer> {
    yield Buffer.from("part");
    throw new Error("broken");
  }
  const pieces: string[] = [];
  const reading = (async () => {
    for await (const piece of struckOut(SECRET).stream(breaks())) pieces.push(String(piece));
  })();
  await expect(reading).rejects.toThrow("broken");
  expect(pieces).toEqual(["part"]);
});
