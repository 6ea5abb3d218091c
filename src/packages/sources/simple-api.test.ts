import { describe, expect, test } from "vitest";
import { parseProject } from "./simple-api.ts";

const HASH = "0123456789abcdef".repeat(4);
const html = (text: string, type = "text/html") => parseProject(Buffer.from(text), type);

describe("a project's page in HTML", () => {
  test.each([
    [
      "Nexus",
      `<html lang="en"><head><title>Links for demo</title><meta name="api-version" value="2"/></head><body><h1>Links for demo</h1>
       <a href="../../packages/demo/1.0/demo-1.0-py3-none-any.whl#sha256=${HASH}" rel="internal" data-requires-python="&gt;=3.8">demo-1.0-py3-none-any.whl</a><br/></body></html>`,
      "../../packages/demo/1.0/demo-1.0-py3-none-any.whl",
    ],
    [
      "older Artifactory",
      `<!DOCTYPE html>\n<html><head><title>Simple Index</title><meta name="api-version" value="2"/></head><body>
       <a data-requires-python="&gt;=3.8" href="../../demo/1.0/demo-1.0-py3-none-any.whl#sha256=${HASH}" rel="internal">demo-1.0-py3-none-any.whl</a><br/></body></html>`,
      "../../demo/1.0/demo-1.0-py3-none-any.whl",
    ],
    [
      "devpi",
      `<!DOCTYPE html><html><head><title>demo: links</title></head><body><h1>demo</h1>
       <a href="../../+f/012/3456789abcdef/demo-1.0-py3-none-any.whl#sha256=${HASH}" data-requires-python="&gt;=3.8">demo-1.0-py3-none-any.whl</a><br/></body></html>`,
      "../../+f/012/3456789abcdef/demo-1.0-py3-none-any.whl",
    ],
    [
      "pypiserver",
      `<!DOCTYPE html><html><head><title>Links for demo</title></head><body><h1>Links for demo</h1>
       <a href="/packages/demo-1.0-py3-none-any.whl#sha256=${HASH}" data-requires-python=">=3.8">demo-1.0-py3-none-any.whl</a><br></body></html>`,
      "/packages/demo-1.0-py3-none-any.whl",
    ],
    [
      "TUNA",
      `<!DOCTYPE html><html><head><meta name="pypi:repository-version" content="1.1"><title>Links for demo</title></head><body><h1>Links for demo</h1>
       <a href="../../packages/ab/cd/demo-1.0-py3-none-any.whl#sha256=${HASH}" data-requires-python="&gt;=3.8" data-dist-info-metadata="sha256=${HASH}" data-core-metadata="sha256=${HASH}">demo-1.0-py3-none-any.whl</a><br/></body></html>`,
      "../../packages/ab/cd/demo-1.0-py3-none-any.whl",
    ],
  ])("as %s writes it", (_server, page, url) => {
    expect(html(page)).toMatchObject([
      { filename: "demo-1.0-py3-none-any.whl", url, hashes: { sha256: HASH }, "requires-python": ">=3.8" },
    ]);
  });

  test("says what is withdrawn, where metadata is, and what has no SHA-256", () => {
    const files =
      html(`<a href="a-1.whl#sha256=${HASH}" data-yanked="broken">a</a><A HREF='a-2.whl#md5=x' data-yanked>b</A>
      <a href="a-3.whl#egg=x&amp;sha256=${HASH.toUpperCase()}" data-core-metadata="sha256=${HASH}">c</a>
      <a href="a%2B1-4.tar.gz?token=x#sha256=${HASH}" data-dist-info-metadata="true">d</a>`);
    expect(files.map((file) => [file.filename, file.hashes.sha256, file.yanked, file["core-metadata"]])).toEqual([
      ["a-1.whl", HASH, "broken", undefined],
      ["a-2.whl", undefined, true, undefined],
      ["a-3.whl", HASH, undefined, { sha256: HASH }],
      ["a+1-4.tar.gz", HASH, undefined, { sha256: undefined }],
    ]);
    expect(files[3]?.url).toBe("a%2B1-4.tar.gz?token=x");
  });

  test("may say where its links begin, and link to other things", () => {
    const files = html(`<head><base href="https://files.example/x/"></head><a href="/">home</a><a>none</a>
      <a href="../demo-1-py3-none-any.whl#sha256=${HASH}">x</a><!-- <a href="no.whl"> --><script>"<a href='no.whl'>"</script>`);
    expect(files.map(({ url }) => url)).toEqual(["https://files.example/demo-1-py3-none-any.whl"]);
  });

  test.each([
    "<html><form action=login></form></html>",
    "<html><body>Access denied <a href='/help'>help</a></body></html>",
    "",
  ])("that is none is refused: %s", (page) =>
    expect(() => html(page)).toThrow("a web page that lists no files of a package"),
  );

  test("may be empty if it says that it is one, and be of no other version", () => {
    expect(html('<meta name="pypi:repository-version" content="1.0"><h1>Links for demo</h1>')).toEqual([]);
    expect(() => html('<meta name="pypi:repository-version" content="2.0">')).toThrow("version of the API");
  });

  test.each(["application/vnd.pypi.simple.v1+html", "application/xhtml+xml; x", "", "text/plain"])(
    "is known by its type or its first letter: %s",
    (type) => {
      const page = `\n<a href="a-1.whl#sha256=${HASH}">a</a>`;
      expect(html(page, type)).toHaveLength(1);
    },
  );

  test("that is nested deeply, or lists too much, is refused before it takes long", () => {
    for (const page of ["<b>".repeat(500_000), `${"<i>".repeat(200_000)}${"</b>".repeat(200_000)}`]) {
      expect(() => html(page)).toThrow("nested too deeply");
    }
    expect(() => html(`<a href="a-1.whl">a</a>`.repeat(60_000))).toThrow("more than 50000 files");
  });

  test("of forty thousand links is read", () => {
    const page = `<a href="a-1.whl#sha256=${HASH}">a-1.whl</a><br/>\n`.repeat(40_000);
    expect(html(page)).toHaveLength(40_000);
  });
});
