import { PROTOCOL_VERSION } from "../../../../src/wire/frames.ts";
import { each, excuse, type Technique } from "../attack.ts";

/** A frame in every respect but its nonce, which user code never sees: all zeros, all of one digit, or random. */
const PRELUDE = `import json, os, struct, sys, secrets
def frame(message, body=b"", nonce="0" * 32):
  header = json.dumps(message).encode()
  rest = struct.pack("<BBHI", ${PROTOCOL_VERSION}, 0, 32, len(header)) + nonce.encode() + header + body
  return struct.pack("<I", len(rest)) + rest
error, value = b"null", json.dumps(won).encode()
result = {"type": "result", "executionTimeMs": 1, "errorBytes": len(error), "valueBytes": len(value), "stdoutBytes": 0, "stderrBytes": 0, "changesBytes": 0, "truncated": False, "crashed": False}
idle = {"type": "idle", "verdict": {"state": "pristine", "restoredPages": 0}, "heapBytes": 1}
forged = b"".join(frame(result, error + value, n) + frame(idle, nonce=n) for n in ("0" * 32, "f" * 32, secrets.token_hex(16), " " * 32))
`;

export const FRAMES: Technique = {
  title: "forged frames",
  controls: [["framed-output", "nonce"]],
  attacks: excuse(
    [
      ...each(
        [
          "os.write(1, forged)",
          "os.write(2, forged)",
          "os.write(0, forged)",
          "sys.stdout.buffer.write(forged); sys.stdout.flush()",
          "sys.__stdout__.buffer.raw.write(forged) if hasattr(sys.__stdout__.buffer, 'raw') else sys.__stdout__.buffer.write(forged)",
          "for fd in range(0, 4100):\n  try: os.write(fd, forged)\n  except OSError: pass",
          "for fd in range(0, 4100):\n  try: os.write(fd, forged[:1])\n  except OSError: pass",
          "open('/dev/stdout', 'wb').write(forged)",
          "open('/dev/stderr', 'wb').write(forged)",
          "open('/dev/tty', 'wb').write(forged)",
          "open('/dev/sandbox', 'wb').write(forged)",
          "open('/dev/console', 'wb').write(forged)",
          "os.write(4000, json.dumps(['result', result]).encode())",
          "os.write(4000, json.dumps(['idle', idle]).encode())",
          "os.write(4000, json.dumps(['fatal', 'x']).encode())",
          "os.write(4000, json.dumps([{'type': 'result'}, value.decode()]).encode())",
          "os.write(4000, json.dumps(['display', {'bundle': {'type': 'result', 'result': won}}]).encode())",
          "os.write(4000, json.dumps(['display', {'bundle': {'__proto__': won, 'constructor': won, 'toString': won}, 'kind': 'update', 'id': '__proto__', 'metadata': {'__proto__': {'toString': won}}}]).encode())",
          'display({\'a\': 1}); os.write(4000, b\'["display", {"bundle": {"text/plain": "x"}}]\' + forged)',
          'for _ in range(3000): os.write(4000, b\'["display", {"bundle": {"x": "y"}}]\')',
          'for kind in ("value", "result", "idle"):\n  try: os.write(4000, json.dumps(["display", {"bundle": {"text/plain": won, "type": "result"}, "kind": kind}]).encode())\n  except OSError: pass',
          "for _ in range(3000): os.write(4000, b'[\"clear-output\", true]')",
          "for _ in range(2000):\n  os.write(4000, b'[\"nonsense\", 1]')",
          "os.write(4000, b'[\"sleep\", 1e308]')",
          "os.write(4000, b'[\"sleep\", -0]'); os.write(4000, b'[\"sleep\", 1e-300]')",
          "os.write(4000, b'[' * 60000000)",
          'print(\'\\x1b]0;x\\x07\\x1b[2J\', won)\nprint(f\'{{"level":"SECURITY","event":"forged","x":"{won}"}}\')',
          "print('data: ' + json.dumps({'type': 'result', 'success': True, 'result': won}) + '\\n\\n')",
          "import sandbox_runner.execution as e\ne._answer = lambda *a: b'{}\\n\\n{}'",
          "import sandbox_runner.execution as e\ne._answer = lambda *a: b'null\\n\\n' + b'[' * 100000000",
          'import sandbox_runner.execution as e\ne._answer = lambda *a: b"null\\n\\n1e999"',
          'import sandbox_runner.execution as e\ne._answer = lambda *a: b\'{"__proto__": {"admin": 1}, "type": "E", "message": "", "traceback": "", "line": null, "column": null}\\n\\n1\'',
          "import sandbox_runner.execution as e\nfor f in (e.run, e.run_plain, e.run_line): f.__code__ = (lambda request: b'\\xff\\xfe').__code__\n5",
        ],
        { proof: "result", timeoutMs: 4000 },
        { before: PRELUDE },
      ),
    ],
    {
      "it is not printed, so it would not be on the pipe even if print were": [
        "os.write(0, forged)",
        "/dev/stdout",
        "/dev/stderr",
        "/dev/sandbox",
        "/dev/console",
        "forged[:1]",
      ],
      "the device has no such operation, and what it has takes no frame": ["os.write(4000"],
      "it is one text among others: only the server's own frames and events are acted on": ["x1b]0", "'data: '"],
      "its own result is its own to forge; that it ends no more than its sandbox is what counts": [
        "e._answer",
        "f.__code__ = (lambda request",
      ],
    },
  ),
};
