import fc from "fast-check";
import { expect, test } from "vitest";
import { readAnswer, readAnswers } from "./answers.ts";

const read = async (text: string) =>
  (await readAnswers(Buffer.from(text), "alice")).map((answer) =>
    "result" in answer
      ? { id: answer.id, result: answer.result.toString() }
      : { id: answer.id, error: answer.error.message, data: answer.error.data?.toString() },
  );

test("values are the bytes that were written, whatever stands around them", async () => {
  const spaces = fc.constantFrom("", " ", "\n\t ");
  const answer = fc.tuple(fc.string(), fc.jsonValue({ maxDepth: 5 }), spaces, fc.boolean());
  await fc.assert(
    fc.asyncProperty(fc.array(answer, { maxLength: 5 }), spaces, async (answers, space) => {
      const texts = answers.map(([id, value, inner, isFirst]) => {
        const members = [
          `"id"${inner}:${inner}${JSON.stringify(id)}`,
          `"result":${inner}${JSON.stringify(value)}${inner}`,
        ];
        return `{${inner}${(isFirst ? members : members.reverse()).join(`${inner},`)}}`;
      });
      const body = `${space}{"other":[{"results":[]}],"results"${space}:[${space}${texts.join(`,${space}`)}${space}]}${space}`;
      expect(await read(body)).toEqual(answers.map(([id, value]) => ({ id, result: JSON.stringify(value) })));
    }),
  );
});

test.each([
  ['{"results":[{"id":"a","result":1e400}]}', [{ id: "a", result: "1e400" }]],
  ['{"results":[{"id":"a","result":1,"result":2}]}', [{ id: "a", result: "2" }]],
  ['{"results":[{"id":"a","result":null}]}', [{ id: "a", result: "null" }]],
  ['{"results":[{"id":"a","result":null,"error":"no"}]}', [{ id: "a", error: "no", data: undefined }]],
  ['{"results":[{"id":"a","error":{"message":"no","data":{"x":[1]}}}]}', [{ id: "a", error: "no", data: '{"x":[1]}' }]],
  ['{"results":[{"id":"a","result":1,"error":null}]}', [{ id: "a", result: "1" }]],
  ['{"results":[]}', []],
])("%s", async (text, answers) => expect(await read(text)).toEqual(answers));

test("a large body is taken apart in a thread, and says the same", async () => {
  const results = Array.from({ length: 3000 }, (_, n) => ({ id: `call_${n}`, result: ["x".repeat(50), n] }));
  expect(await read(JSON.stringify({ results }))).toEqual(
    results.map(({ id, result }) => ({ id, result: JSON.stringify(result) })),
  );
});

test.each([
  ["", "invalid_json"],
  ["null", "invalid_request"],
  ["{}", "invalid_request"],
  ['{"results":{}}', "invalid_request"],
  ['{"results":[1]}', "invalid_request"],
  ['{"results":[{"id":"a"}]}', "invalid_request"],
  ['{"results":[{"result":1}]}', "invalid_request"],
  ['{"results":[{"id":"a","result":1,"error":"x"}]}', "invalid_request"],
  ['{"results":[{"id":"a","error":{}}]}', "invalid_request"],
  ['{"results":[{"id":"a","result":NaN}]}', "invalid_json"],
  ['{"results":[{"id":"a","result":1}],}', "invalid_json"],
  [`{"results":[{"id":"a","result":${"[".repeat(101)}${"]".repeat(101)}}]}`, "json_too_complex"],
  [`${"[".repeat(500)}`, "json_too_complex"],
])("%j is refused", async (text, code) => {
  await expect(readAnswers(Buffer.from(text), "alice")).rejects.toMatchObject({ code });
});

test("one by itself needs no id, and none that it has counts", async () => {
  const answer = await readAnswer(Buffer.from(' {"id":"other","result":[1]} '), "call_1", "alice");
  expect(answer).toMatchObject({ id: "call_1" });
  await expect(readAnswer(Buffer.from("[]"), "call_1", "alice")).rejects.toMatchObject({ code: "invalid_request" });
  await expect(readAnswer(Buffer.from('{"result":1}],"x":[{}'), "call_1", "alice")).rejects.toMatchObject({
    code: "invalid_json",
  });
});
