import { once } from "node:events";
import { readFileSync } from "node:fs";
import { type AddressInfo, createServer, type Socket } from "node:net";
import path from "node:path";
import { afterEach, expect, test } from "vitest";
import { Target } from "../security/escapes/target.ts";

const FAULTS = new URL("../support/faults.js", import.meta.url).href;
let target: Target | undefined;
afterEach(async () => {
  await target?.stop();
  target = undefined;
});

function serverLog(): Record<string, unknown>[] {
  const text = readFileSync(path.join((target as Target).logDir, "server.log"), "utf8");
  return text
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
}

test.each([
  ["a rejected promise that nobody waits for", "reject", "A promise was rejected"],
  ["an error that is thrown in a socket's event", "throw", "An error was thrown"],
  ["a rejection that is no error", "reject a text", "A promise was rejected"],
])("%s is logged once, without what it says, and ends nothing", async (_what, fault, message) => {
  target = await Target.start({ preload: [FAULTS] });
  for (let i = 0; i < 3; i++) await target.tell(fault);
  expect((await target.run("6 * 7")).body).toMatchObject({ result: 42 });
  expect((await target.send("/ready")).status).toBe(200);
  const logged = serverLog().filter(({ msg }) => String(msg).startsWith(message));
  expect(logged).toHaveLength(1);
  expect(JSON.stringify(serverLog())).not.toContain("a-key-in-a-message");
  if (fault === "reject") expect(logged[0]).toMatchObject({ type: "TypeError", code: "ERR_OF_A_TEST" });
});

/** A host that resets the connection in the middle of a body, while the server has not taken what it has sent. */
test.each(["reset", "end"])("a host whose connection ends (%s) while its body is not read", async (how) => {
  const sockets = new Set<Socket>();
  const host = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.once("data", (request) => {
      const bytes = Number(/GET \/(\d+)/.exec(String(request))?.[1]);
      socket.write("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/octet-stream\r\n\r\n");
      socket.write(Buffer.alloc(bytes, 65));
      setTimeout(() => (how === "reset" ? socket.resetAndDestroy() : socket.end()), 700);
    });
  });
  await once(host.listen(0, "127.0.0.1"), "listening");
  const origin = `127.0.0.1:${(host.address() as AddressInfo).port}`;
  try {
    target = await Target.start({ settings: { NETWORK_ALLOW: origin, NETWORK_ALLOW_PRIVATE: "true" } });
    const { body } = await target.run(
      `import urllib.request, time
opened = [urllib.request.urlopen(f"http://${origin}/{kib * 1024}") for kib in (128, 160, 192, 1152, 1160, 1180, 1200)]
time.sleep(2)
len(opened)`,
      { timeout: 30_000 },
    );
    expect(body).toMatchObject({ result: 7 });
    expect((await target.run("6 * 7", {}, "alices-own-key-here")).body).toMatchObject({ result: 42 });
    // It did not need the last resort.
    expect(serverLog().filter(({ level }) => level === "error")).toEqual([]);
  } finally {
    for (const socket of sockets) socket.destroy();
    host.close();
  }
});
