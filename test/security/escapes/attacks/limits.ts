import { brotliCompressSync, deflateSync, gzipSync } from "node:zlib";
import { type Attack, each, excuse, type Technique } from "../attack.ts";

const MIB = 1024 * 1024;

/** Has the runner answer what it is told to: the error's line, and the value's. */
const FORGE = `import json, os
import sandbox_runner.execution as e
def forge(value='1', error='null'):
  e._answer = lambda *a: f'{error}\\n\\n{value}'.encode()
def call(operation, text):
  try: os.write(4000, b'["' + operation + b'",' + text + b']')
  except OSError as error: pass
`;

/** Outcomes just below each limit, and just above. */
const OUTCOMES = each(
  [
    "forge('[' + '{\"34\":0},' * 3_990_000 + '0]')",
    "forge('[' + '{\"34\":0},' * 7_000_000 + '0]')",
    "forge('[' * 3_000_000)",
    "forge('[' * 6_000_000 + ']' * 6_000_000)",
    "forge('[' * 200 + ']' * 200)",
    "forge('[' * 201 + ']' * 201)",
    "forge('[' + '0,' * 11_999_990 + '0]')",
    "forge('[' + '[],' * 11_900_000 + '[]]')",
    "forge('\"' + 'x' * (64 * 2**20 - 2) + '\"')",
    "forge('\"' + 'é' * (32 * 2**20 - 1) + '\"')",
    "forge('\"' + '\\\\u0041' * 11_000_000 + '\"')",
    "forge('{' + ','.join('\"%d\":0' % i for i in range(1_000_000)) + '}')",
    "forge('1' * (64 * 2**20))",
    "forge('1e' + '9' * (60 * 2**20))",
    "forge('\"' + '\\\\' * (60 * 2**20))",
    "forge(' ' * (60 * 2**20) + '1')",
    "x = [0] * 10**6\n[x] * 9",
    "'x' * (10 * 2**20)",
    "'\\x00' * (10 * 2**20)",
    "'\\ud800' * (3 * 2**20)",
    "{str(i): i for i in range(500_000)}",
    "message = 'x' * 3_900_000\nforge('null', json.dumps({'type': 'E', 'message': message, 'traceback': message, 'line': None, 'column': None}))",
    "message = '\\x01' * 650_000\nforge('null', json.dumps({'type': 'E', 'message': message, 'traceback': message, 'line': None, 'column': None}))",
    'forge(\'1\', \'{"type":"E","message":"","x":[\' + \'0,\' * 4_000_000 + \'0]}\')',
    "forge('1', '[' * 8_000_000)",
    "raise type('X' * 10**6, (Exception,), {})('y' * 10**6)",
  ],
  { proof: "none", denial: true, timeoutMs: 20_000 },
  { before: FORGE },
);

/** What is shown, asked for, opened and written. */
const OTHERS = each(
  [
    "call(b'display', ('{\"bundle\":{' + ','.join('\"%d\":\"\"' % i for i in range(1_000_000)) + '}}').encode())",
    'for _ in range(60_000): call(b\'display\', b\'{"bundle":{"a":"b"}}\')',
    "call(b'display', ('{\"bundle\":{' + ','.join('\"%d\":\"x\"' % i for i in range(100)) + '}}').encode())",
    "call(b'display', b'{\"bundle\":{\"a\":\"' + b'x' * (63 * 2**20) + b'\"}}')",
    'for i in range(60_000): call(b\'display\', b\'{"bundle":{"a":"b"},"id":"\' + str(i).rjust(256).encode() + b\'"}\')',
    'for _ in range(60_000): call(b\'display\', b\'{"bundle":{"a":"b"},"kind":"update","id":"x"}\')',
    "for _ in range(60_000): call(b'clear-output', b'true')",
    "call(b'display', b'{\"bundle\":{},\"metadata\":' + b'{\"a\":' * 100_000 + b'1' + b'}' * 100_000 + b'}')",
    "for _ in range(9): display({'x': 'y' * 10**6})",
    "call(b'nonsense', b'\"' + b'x' * (47 * 2**20) + b'\"')",
    "call(b'nonsense', b'[' * 40_000_000)",
    "call(b'nonsense', b'[' + b'0,' * 9_990 + b'0]')",
    "call(b'nonsense', b'[' + b'0,' * 10_000_000 + b'0]')",
    "call(b'read-file', b'\"' + b'/x' * 20_000_000 + b'\"')",
    "call(b'read-package', b'null'); call(b'read-package', b'{\"sha256\":null}'); call(b'read-package', b'{\"sha256\":\"x\",\"offset\":-1,\"length\":1e300}')",
    "call(b'install-packages', b'[' + b'\"x\",' * 9_000 + b'\"x\"]')",
    'call(b\'http-start\', b\'{"method":"POST","url":"http://a/","headers":[],"body":"\' + b\'A\' * (12 * 2**20) + b\'","timeoutMs":null}\')',
    'call(b\'http-start\', b\'{"headers":[\' + b\'["a","b"],\' * 3_000 + b\'["a","b"]]}\')',
    "call(b'x' * 65, b'1'); call(b'x' * 10_000_000, b'1')",
    "print('x' * (2**20 - 2)); import sys; sys.stderr.write('y' * 2**20)",
    "while True: print(end='x')",
  ],
  { proof: "none", denial: true, timeoutMs: 20_000 },
  { before: FORGE },
);

const IN_SESSIONS = each(
  [
    "import os\nfor i in range(3_000): open('/tmp/' + 'x' * 200 + str(i), 'w')",
    "files = [open('/tmp/f' + str(i), 'w') for i in range(4_000)]",
    "import os\nfor i in range(9_000): os.symlink('/' + 'y' * 200, '/tmp/l' + str(i))",
    "import os\nfor i in range(9_000): open('/tmp/' + 'z' * 100 + str(i), 'w').close()",
  ],
  { proof: "none", denial: true, session: true, timeoutMs: 60_000 },
);

/** Without it the attacks above would say nothing on the day on which the runner answers in another way. */
const FORGING: Attack = {
  name: "what is forged arrives",
  code: "",
  proof: "none",
  noControl: "it shows that the other attacks of its kind reach the server",
  act: async (target) => {
    const value = await target.run(`${FORGE}forge('[[4711]]')`);
    const error = `{"type":"E","message":"forged","traceback":"","line":null,"column":null}`;
    const failed = await target.run(`${FORGE}forge('null', '${error}')`);
    const seen = JSON.stringify([value.body.result, failed.body.errorInfo?.message]);
    if (seen !== '[[[4711]],"forged"]') throw new Error(`nothing was forged: ${seen}`);
    return [value, failed];
  },
};

interface Body {
  readonly name: string;
  readonly path?: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly make: () => Uint8Array;
}

const JSON_TYPE = { "content-type": "application/json" };
const FORM_TYPE = { "content-type": "application/x-www-form-urlencoded" };
const text = (of: string) => () => Buffer.from(of);
const BODIES: readonly Body[] = [
  {
    name: "30 MB of [ in 29 kB of gzip",
    headers: { ...JSON_TYPE, "content-encoding": "gzip" },
    make: () => gzipSync(Buffer.alloc(30 * MIB, "[")),
  },
  {
    name: "30 MB of [ by deflate",
    headers: { ...JSON_TYPE, "content-encoding": "deflate" },
    make: () => deflateSync(Buffer.alloc(30 * MIB, "[")),
  },
  {
    name: "30 MB of [ by brotli",
    headers: { ...JSON_TYPE, "content-encoding": "br" },
    make: () => brotliCompressSync(Buffer.alloc(30 * MIB, "[")),
  },
  {
    name: "1 GB of zeros by gzip",
    headers: { ...JSON_TYPE, "content-encoding": "gzip" },
    make: () => gzipSync(Buffer.alloc(1024 * MIB)),
  },
  { name: "3 million objects", headers: JSON_TYPE, make: () => Buffer.from(`[${'{"34":0},'.repeat(3_000_000)}0]`) },
  {
    name: "50,000 values and 29 MB of text",
    headers: JSON_TYPE,
    make: () => Buffer.from(`{"code":"1","a":[${"1,".repeat(49_000)}1],"b":"${"\\u0041".repeat(4_800_000)}"}`),
  },
  { name: "49,000 values in 128 KB", headers: JSON_TYPE, make: text(`{"code":"1","a":[${"1,".repeat(49_000)}1]}`) },
  {
    name: "a million keys",
    headers: JSON_TYPE,
    make: () => Buffer.from(`{${Array.from({ length: 1_000_000 }, (_, i) => `"${i}":0`).join()}}`),
  },
  {
    name: "200 levels, 40 times",
    headers: JSON_TYPE,
    make: text(`{"code":"1","a":[${`${"[".repeat(190)}${"]".repeat(190)},`.repeat(200)}0]}`),
  },
  {
    name: "30 MB of text in UTF-16",
    headers: { "content-type": "application/json; charset=utf-16" },
    make: () => Buffer.from(`{"code":"1","x":"${"é".repeat(14 * MIB)}"}`, "utf16le"),
  },
  { name: "29 MB of whitespace", headers: JSON_TYPE, make: () => Buffer.from(`${" ".repeat(29 * MIB)}{"code":"1"}`) },
  {
    name: "a context of 29 MB",
    headers: JSON_TYPE,
    make: () => Buffer.from(`{"code":"1","context":{"x":"${"y".repeat(29 * MIB)}"}}`),
  },
  {
    name: "a context of one number of 29 MB",
    headers: JSON_TYPE,
    make: () => Buffer.from(`{"code":"1","context":{"x":${"7".repeat(29 * MIB)}}}`),
  },
  {
    name: "a context of many numbers",
    headers: JSON_TYPE,
    make: () => Buffer.from(`{"code":"1","context":{"x":[${"1e309,".repeat(40_000)}1]}}`),
  },
  {
    name: "a form of one field of 29 MB of escapes",
    headers: FORM_TYPE,
    make: () => Buffer.from(`code=${"%41".repeat(10_000_000)}`),
  },
  { name: "a form of 29 MB of &", headers: FORM_TYPE, make: () => Buffer.alloc(29 * MIB, "&") },
  {
    name: "a form of 1000 fields 32 deep",
    headers: FORM_TYPE,
    make: text(Array.from({ length: 1000 }, (_, i) => `a${i % 3}${"[b]".repeat(30)}[${i}]=1`).join("&")),
  },
  { name: "a form of 29 MB of brackets", headers: FORM_TYPE, make: () => Buffer.from(`a${"[b]".repeat(9_000_000)}=1`) },
  {
    name: "code of 10 MB as text",
    path: "/api/execute-raw",
    headers: { "content-type": "text/plain" },
    make: () => Buffer.from(`#${"x".repeat(10 * MIB - 8)}\n1`),
  },
  {
    name: "10 MB of whitespace as code",
    path: "/api/execute-raw",
    headers: { "content-type": "text/plain" },
    make: () => Buffer.alloc(10 * MIB, " "),
  },
  {
    name: "10 MB of code in GB18030",
    path: "/api/execute-raw",
    headers: { "content-type": "text/plain; charset=gb18030" },
    make: () => Buffer.from(`#${"\u4e2d".repeat(3 * MIB)}`),
  },
  {
    name: "10 MB of code in UTF-16",
    path: "/api/execute-raw",
    headers: { "content-type": "text/plain; charset=utf-16le" },
    make: () => Buffer.from(`#${"é".repeat(5 * MIB - 8)}\n1`, "utf16le"),
  },
];

const attackBy = ({ name, path = "/api/execute", headers, make }: Body): Attack => ({
  name: `a body: ${name}`,
  code: "",
  proof: "none",
  denial: true,
  timeoutMs: 20_000,
  act: async (target) => [
    await target.send(path, { method: "POST", headers: { ...headers }, body: Buffer.from(make()) }),
  ],
});

export const LIMITS: Technique = {
  title: "what is just within each limit",
  controls: [["bounded-json"]],
  attacks: excuse([FORGING, ...OUTCOMES, ...OTHERS, ...IN_SESSIONS, ...BODIES.map(attackBy)], {
    "what stops it is a number in the code, not a layer that can be taken out; that it delays nobody is what counts": [
      "call(b'",
      "display({'x'",
      "print('x' * (2**20 - 2))",
      "print(end='x')",
      "open('/tmp/",
      "os.symlink(",
      "message = '",
      "4_000_000 + '0]}')",
      "forge('1', '[' * 8_000_000)",
    ],
    "it is let through, and small enough to delay nobody": [
      "forge('[' * 200 ",
      "forge('[' * 201 ",
      "forge(' ' * (60 ",
      "x = [0] * 10**6",
      "'x' * (10 * 2**20)",
      "raise type('X'",
      "49,000 values in 128 KB",
      "200 levels, 40 times",
      "a context of many numbers",
      "code of 10 MB as text",
      "10 MB of whitespace as code",
      "10 MB of code in GB18030",
      "10 MB of code in UTF-16",
    ],
    "it is refused before it is unpacked or taken apart, by the readers of bodies and forms": [
      "1 GB of zeros by gzip",
      "a form of 29 MB of &",
      "a form of 1000 fields 32 deep",
    ],
  }),
};
