import { writeFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../shared/testing/temporary-folder.ts";
import { isTextFile } from "./text-content.ts";

const folder = temporaryFolder("text-content");

const utf16 = (text: string) => Buffer.concat([Buffer.from([0xff, 0xfe]), Buffer.from(text, "utf16le")]);

test.each([
  ["nothing", "", true],
  ["a table", "a,b\n1,2\n", true],
  ["UTF-8", "größe,café,🐍\n", true],
  ["Latin-1", Buffer.from("größe", "latin1"), true],
  ["a table as Excel saves it in Unicode", utf16("a\tb\r\n"), true],
  ["a program", Buffer.from("7f454c4602010100000000", "hex"), false],
  ["a WebAssembly module", Buffer.from("0061736d01000000", "hex"), false],
  ["a zip file", Buffer.from("504b03041400000008000000", "hex"), false],
  ["a NUL byte at the end of a megabyte", Buffer.concat([Buffer.alloc(2 ** 20, "x"), Buffer.from([0])]), false],
])("%s", async (name, content, isText) => {
  const file = path.join(folder, name.replaceAll(" ", "-"));
  writeFileSync(file, content);
  expect(await isTextFile(file)).toBe(isText);
});
