import { makeWheel } from "../../../../src/packages/testing/wheels.ts";
import type { Attack, Prize, Technique } from "../attack.ts";
import type { Reply, Target } from "../target.ts";

const DATA = "what is sent is data: nothing on the way makes code, a command or a path of it that could be let through";

type Texts = (prize: Prize) => readonly string[];

/** Text that becomes something else where it is not kept apart: Python, a shell's command, a path, a log line, HTML. */
const TEXTS: Texts = ({ won, marker, secret_file, port }) => [
  `"; open('${marker}', 'w') #`,
  `'''\nopen(${JSON.stringify(marker)}, 'w')\n'''`,
  `{__import__('os').system('touch ${marker}')}`,
  `$(touch ${marker})`,
  `\`touch ${marker}\``,
  `; touch ${marker} #`,
  `| touch ${marker}`,
  `--index-url=http://127.0.0.1:${port}/`,
  `-r ${secret_file}`,
  `x @ file://${secret_file}`,
  `x @ http://127.0.0.1:${port}/x-1-py3-none-any.whl`,
  `../../../../../../../..${secret_file}`,
  `..\\..\\..${secret_file}`,
  secret_file,
  `file://${secret_file}`,
  `%2e%2e%2f%2e%2e%2f..${secret_file}`,
  `a\0${secret_file}`,
  "__proto__",
  "constructor",
  "a'; DROP TABLE sessions; --",
  `\n{"level":"SECURITY","event":"forged","principal":"alice","details":{"success":"${won}"}}\n`,
  `\r\nX-Injected: ${won}\r\n\r\n`,
  `\${jndi:ldap://127.0.0.1/x}`,
  "\u001b]0;x\u0007\u001b[2J",
  "<script>alert(1)</script>",
  "=cmd|'/C calc'!A0",
  "x".repeat(5000),
];

type Send = (target: Target, text: string) => Promise<Reply>;
const post = (target: Target, path: string, body: unknown): Promise<Reply> =>
  target.send(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: typeof body === "string" ? body : JSON.stringify(body),
  });
const upload = (target: Target, filename: string, content: string): Promise<Reply> => {
  const form = new FormData();
  form.append("file", new Blob([content]), filename);
  return target.send("/api/upload", { method: "POST", body: form });
};

/** Where a client's text goes. */
const PLACES: Readonly<Record<string, Send>> = {
  "a value in the context": (target, text) => target.run("x", { context: { x: text } }),
  "a key of the context": (target, text) => target.run("1", { context: { [text]: 1 } }),
  "a key inside the context": (target, text) => target.run("x", { context: { x: { [text]: [{ [text]: text }] } } }),
  "standard input": (target, text) => target.run("input()", { stdin: text }),
  "the session's name": (target, text) => target.run("1", { session: text }),
  "a new session's name": (target, text) => post(target, "/api/sessions", { id: text }),
  "the environment's name": (target, text) => target.run("1", { environment: text }),
  "a package's name": (target, text) => post(target, "/api/install-package", { package: text }),
  "a package's name for micropip": (target, text) =>
    target.run("import micropip\nawait micropip.install(x)", { context: { x: text } }),
  "an upload's name": (target, text) => upload(target, `${text}.csv`, "a,b\n1,2\n"),
  "an upload's name, in the path": (target, text) =>
    target.send(`/api/file-info/${encodeURIComponent(text)}`, { method: "GET" }),
  "a file to delete": (target, text) =>
    target.send(`/api/uploaded-files/${encodeURIComponent(text)}`, { method: "DELETE" }),
  "a header of a CSV file": (target, text) => upload(target, "a.csv", `${text},b\n1,2\n`),
  "a cell of a CSV file": (target, text) => upload(target, "a.csv", `a,b\n${text},2\n`),
  "a key of a JSON file": (target, text) => upload(target, "a.json", JSON.stringify([{ [text]: text }])),
  "the request's id": (target, text) => target.send("/api/status", { headers: { "x-request-id": header(text) } }),
  "the client's name": (target, text) => target.send("/api/status", { headers: { "user-agent": header(text) } }),
  "the address of a proxy": (target, text) =>
    target.send("/api/status", { headers: { "x-forwarded-for": header(text) } }),
  "the key": (target, text) => target.send("/api/status", { headers: { "x-api-key": header(text) || "x" } }),
  "the path": (target, text) => target.send(`/${encodeURI(text.toWellFormed())}`),
  "a query": (target, text) => target.send(`/api/status?${encodeURIComponent(text)}=${encodeURIComponent(text)}`),
};

/** What a header may hold: bytes of Latin-1 that end no line. */
const header = (text: string) => text.replaceAll(/[^\x20-\x7e]/g, " ").trim();

const made = (version: string, files: Record<string, string>, more = {}) =>
  makeWheel({ name: "evil", version, files, ...more });
const WHEELS = {
  "metadata that names a file and a command": made(
    "1",
    { "evil.py": "" },
    { requires: ["x; os_name == '$(touch /tmp/x)'"] },
  ),
  "code where an installer would run it": made("2", {
    "setup.py": "raise SystemExit(1)",
    "evil.pth": "import os; print(open('/proc/self/environ').read())",
    "sitecustomize.py": "print('stolen')",
    "evil/__init__.py": "import os\nos.environ['STOLEN'] = '1'",
  }),
  "names of the standard library": made("3", { "json.py": "print('stolen')", "sandbox_runner/execution.py": "1 / 0" }),
  "paths that leave the folder": made("4", { "../../evil.py": "x", "/etc/evil": "x" }),
  "a record that lies": made(
    "5",
    { "evil.py": "x" },
    { record: (text: string) => text.replace(/sha256=\w/, "sha256=0") },
  ),
};

const wheelAttacks = await Promise.all(
  Object.entries(WHEELS).map(async ([what, wheel], index): Promise<Attack> => {
    await wheel;
    return {
      name: `a wheel with ${what}`,
      code: "",
      noControl: "a wheel is unpacked and read, never run, and no path in it becomes one of the host's",
      act: async (target, prize) => {
        const replies = [await post(target, "/api/install-package", { package: `evil==${index + 1}` })];
        replies.push(await target.run("try: import evil\nexcept ImportError: pass\nprint('here')", { context: prize }));
        const asAlice =
          "import sys, os, json\nif 'STOLEN' in os.environ or 'evil' in sys.modules: print(won)\njson.dumps([1])";
        replies.push(await target.run(asAlice, { context: prize }, "alices-own-key-here"));
        await post(target, "/api/reset", {});
        return replies;
      },
    };
  }),
);

export const INJECTION: Technique = {
  title: "injection through what clients send",
  controls: [],
  settings: { PACKAGE_DIR: "DATA_DIR/wheels" },
  files: Object.fromEntries(
    (await Promise.all(Object.values(WHEELS))).map(({ filename, bytes }) => [`wheels/${filename}`, bytes]),
  ),
  attacks: [
    ...Object.entries(PLACES).map(
      ([place, send]): Attack => ({
        name: `through ${place}`,
        // It comes back where it belongs.
        proof: "none",
        code: "",
        noControl: DATA,
        act: async (target, prize) => {
          const replies: Reply[] = [];
          for (const text of TEXTS(prize)) replies.push(await send(target, text));
          await post(target, "/api/clear-all-files", {});
          // The error a client gets may repeat what it sent, its own file's name included.
          return replies.map((reply) => ({ ...reply, text: reply.status >= 400 ? "" : reply.text }));
        },
      }),
    ),
    ...wheelAttacks,
  ],
};
