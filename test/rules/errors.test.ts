import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { ClientError, ERRORS, type ErrorCode, errorKind } from "../../src/shared/errors.ts";
import { ROOT, SRC, sources } from "../support/imports.ts";

const codes = Object.keys(ERRORS) as ErrorCode[];
const texts = new Map(sources.map((file) => [file, readFileSync(path.join(SRC, file), "utf8")]));

test("docs/errors.md has every code", () => {
  const page = readFileSync(path.join(ROOT, "docs/errors.md"), "utf8");
  for (const code of codes) expect(page).toContain(`| \`${code}\` |`);
});

test("every code has a text or a meaning, and a source that uses it", () => {
  const used = Array.from(texts, ([file, text]) => (file === "shared/errors.ts" ? "" : text)).join("\n");
  for (const code of codes) {
    const { status, text, means } = errorKind(code);
    expect(
      [text, means].filter((said) => said !== undefined && said !== ""),
      code,
    ).toHaveLength(1);
    expect(status >= 400 && status <= 599, code).toBe(true);
    expect(used.includes(`"${code}"`), code).toBe(true);
  }
});

test("an error has the status, the text and the time of its code", () => {
  expect(new ClientError("queue_full")).toMatchObject({
    status: 429,
    message: errorKind("queue_full").text,
    retryAfterS: 1,
  });
  expect(new ClientError("not_found", "File a not found")).toMatchObject({ status: 404, message: "File a not found" });
  expect(new ClientError("rate_limited", { retryAfterS: 7 }).retryAfterS).toBe(7);
});

test("only http/ and protocols/ know of statuses", () => {
  const reads = Array.from(texts).filter(
    ([file, text]) =>
      !/^(?:http|protocols)\//.test(file) &&
      /ClientError\(\s*\d|\b(?:error|failure|notKept|cause)\??\.status\b/.test(text),
  );
  expect(reads.map(([file]) => file)).toEqual([]);
});

/** A piece of the message by which tests know a code, where they name neither the code nor a text of the table. */
const BY_MESSAGE: Partial<Record<ErrorCode, string>> = {
  file_type: "Allowed types",
  file_too_large: "File size too large",
  invalid_upload: "incomplete",
  package_refused: "for security reasons",
  package_incompatible: "cannot be used here",
  package_share_full: "your share",
  package_unsafe_library: "is not safe",
  too_many_requests: "requests in one execution",
  unknown_operation: "does not offer",
  wrong_content_type: "The body came as",
};
/** Codes that no test brings about, and why. */
const NOT_PROVOKED: Partial<Record<ErrorCode, string>> = {
  checkpoint_limit: "takes a hundred checkpoints of one session",
  packages_busy: "takes other servers that change the same packages all the time",
  secret_limit: "takes as many secrets as a principal may have",
  session_busy: "takes another server that holds the session for half a minute",
  session_environment_changed: "takes a session of another build of the images",
  session_full: "takes a session of SESSION_MAX_MB",
  too_many_open_requests:
    "takes as many requests at a time as a principal may have open: what refuses them has a test beside it",
  too_many_streams: "takes as many open dashboards as a principal may have",
  client_gone: "its client has gone and reads no reply",
  argument_too_large: "only a sandbox that was taken over asks with one",
  unknown_archive: "only a sandbox that was taken over asks for one that it was not given",
};

test("every code is brought about by a test that names it or its text, or it is said why none does", () => {
  const tests = [...testsBelow("src"), ...testsBelow("test")]
    .filter((file) => !file.endsWith("rules/errors.test.ts"))
    .map((file) => readFileSync(file, "utf8"))
    .join("\n");
  const unnamed = codes.filter((code) => {
    const said = [code, errorKind(code).text, BY_MESSAGE[code]].filter((name) => name !== undefined);
    return NOT_PROVOKED[code] === undefined && !said.some((name) => tests.includes(name));
  });
  expect(unnamed).toEqual([]);
});

function testsBelow(folder: string): string[] {
  return readdirSync(path.join(ROOT, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts") && (folder === "test" || /\.test\.ts$|[\\/]testing[\\/]/.test(name)))
    .map((name) => path.join(ROOT, folder, name));
}
