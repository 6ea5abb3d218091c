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

test.each([
  ["as it is", SECRET],
  ["as URLs have it", encodeURIComponent(SECRET)],
  ["as JSON has it", JSON.stringify(SECRET).slice(1, -1)],
  ["in base64", Buffer.from(SECRET).toString("base64")],
  ["in base64 of URLs", Buffer.from(SECRET).toString("base64url")],
])("a value is struck out %s", async (_how, form) => {
  const struck = struckOut(SECRET);
  expect(struck.text(`a=${form}; b=${form}`)).toBe("a=***; b=***");
  expect(await read(struck, [Buffer.from(`<${form}>`)])).toBe(`<${"*".repeat(form.length)}>`);
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
