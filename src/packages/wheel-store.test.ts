import { readdir, readFile, writeFile } from "node:fs/promises";
import type { ServerResponse } from "node:http";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { temporaryFolder } from "../shared/testing/temporary-folder.ts";
import { HttpFetcher } from "./fetcher.ts";
import { type Handler, PackageServer, serveBytes } from "./testing/package-server.ts";
import { type MadeWheel, makeWheel } from "./testing/wheels.ts";
import { type DownloadProgress, WheelStore } from "./wheel-store.ts";

const PATH = "/files/wheel.whl";
let server: PackageServer;
let remote: HttpFetcher;
let folder: string;
let wheel: MadeWheel;

beforeEach(async () => {
  server = await PackageServer.start();
  remote = new HttpFetcher({ idleTimeoutMs: 5_000, retryDelayMs: 1 });
  folder = temporaryFolder();
  // Incompressible enough to arrive in more than one piece.
  const noise = Array.from({ length: 40_000 }, (_, index) => Math.sin(index).toString(36)).join("");
  wheel = await makeWheel({ name: "big", version: "1", files: { "big.py": noise } });
  server.on(PATH, serveBytes(wheel.bytes));
});

afterEach(async () => {
  await remote.close();
  await server.close();
});

const download = () => ({ filename: wheel.filename, sha256: wheel.sha256, location: { url: server.origin + PATH } });
const failing = (code: string, message: RegExp) =>
  expect.objectContaining({ code, message: expect.stringMatching(message) });

/** Sends the first half; the connection breaks when {@link breakConnection} is told that it arrived. */
const sendHalf: Handler = (_request, response) => {
  response.writeHead(200, { "content-length": wheel.bytes.length });
  response.write(wheel.bytes.subarray(0, half()));
  connection = response;
};
let connection: ServerResponse | undefined;
const half = () => Math.floor(wheel.bytes.length / 2);

function breakConnection({ receivedBytes }: DownloadProgress): void {
  if (receivedBytes === half()) connection?.destroy();
}

/** Leaves the first half of the wheel in the folder. */
async function breakHalfway(): Promise<void> {
  server.on(PATH, sendHalf);
  const impatient = new HttpFetcher({ attempts: 1 });
  await expect(new WheelStore(folder, impatient).fetch(download(), breakConnection)).rejects.toThrow(
    failing("package_source_unavailable", /^127\.0\.0\.1:\d+ broke the connection\.$/),
  );
  await impatient.close();
}

test("a wheel is fetched once, under its hash, with progress", async () => {
  const store = new WheelStore(folder, remote);
  const progress: DownloadProgress[] = [];
  const stored = await store.fetch(download(), (step) => progress.push(step));
  expect(stored).toEqual({
    path: path.join(folder, `${wheel.sha256}.whl`),
    sha256: wheel.sha256,
    bytes: wheel.bytes.length,
  });
  expect(wheel.bytes.equals(await readFile(stored.path))).toBe(true);
  expect(progress.at(-1)).toEqual({
    filename: wheel.filename,
    receivedBytes: wheel.bytes.length,
    totalBytes: wheel.bytes.length,
  });
  await store.fetch(download());
  await new WheelStore(folder, remote).fetch(download());
  expect(server.count(PATH)).toBe(1);
  expect(await readdir(path.join(folder, "partial"))).toEqual([]);
});

test("the same wheel asked for twice at a time is fetched once", async () => {
  const store = new WheelStore(folder, remote);
  await Promise.all([store.fetch(download()), store.fetch(download())]);
  expect(server.count(PATH)).toBe(1);
});

test("a wrong hash is refused, and nothing is kept", async () => {
  const store = new WheelStore(folder, remote);
  server.on(PATH, serveBytes(Buffer.from("something else")));
  await expect(store.fetch(download())).rejects.toThrow(failing("package_damaged", /its SHA-256 is .*was promised/));
  expect(await readdir(folder)).toEqual(["partial"]);
  expect(await readdir(path.join(folder, "partial"))).toEqual([]);
});

describe("broken connections", () => {
  test("the next attempt goes on where the last one stopped", async () => {
    const ranges: (string | undefined)[] = [];
    server.on(PATH, (request, response) => {
      ranges.push(request.headers.range);
      (ranges.length === 1 ? sendHalf : serveBytes(wheel.bytes))(request, response);
    });
    const stored = await new WheelStore(folder, remote).fetch(download(), breakConnection);
    expect(wheel.bytes.equals(await readFile(stored.path))).toBe(true);
    expect(ranges).toEqual([undefined, `bytes=${half()}-`]);
  });

  test("so does the next start of the server", async () => {
    await breakHalfway();
    let range: string | undefined;
    server.on(PATH, (request, response) => {
      range = request.headers.range;
      serveBytes(wheel.bytes)(request, response);
    });
    const stored = await new WheelStore(folder, remote).fetch(download());
    expect(wheel.bytes.equals(await readFile(stored.path))).toBe(true);
    expect(range).toBe(`bytes=${half()}-`);
  });

  test("a server that knows no ranges sends everything again", async () => {
    await breakHalfway();
    server.on(PATH, (_request, response) => response.writeHead(200).end(wheel.bytes));
    const stored = await new WheelStore(folder, remote).fetch(download());
    expect(wheel.bytes.equals(await readFile(stored.path))).toBe(true);
  });

  test.each([10, 10_000_000])("a partial file of %i wrong bytes is thrown away", async (length) => {
    await breakHalfway();
    const [name = ""] = await readdir(path.join(folder, "partial"));
    await writeFile(path.join(folder, "partial", name), Buffer.alloc(length, "?"));
    server.on(PATH, serveBytes(wheel.bytes));
    const stored = await new WheelStore(folder, remote).fetch(download());
    expect(wheel.bytes.equals(await readFile(stored.path))).toBe(true);
  });
});

describe("servers that do not deliver", () => {
  test.each([500, 502, 429])("%i is tried again", async (status) => {
    let asked = 0;
    server.on(PATH, (request, response) => {
      if (++asked < 3) response.writeHead(status).end("later");
      else serveBytes(wheel.bytes)(request, response);
    });
    await new WheelStore(folder, remote).fetch(download());
    expect(asked).toBe(3);
  });

  test("but not for ever", async () => {
    server.on(PATH, (_request, response) => response.writeHead(503).end());
    await expect(new WheelStore(folder, remote).fetch(download())).rejects.toThrow(
      failing("package_source_unavailable", /answered 503/),
    );
    expect(server.count(PATH)).toBe(4);
  });

  test("404 and 403 are not", async () => {
    server.on(PATH, (_request, response) => response.writeHead(404).end());
    await expect(new WheelStore(folder, remote).fetch(download())).rejects.toThrow(
      failing("package_not_found", /answered 404/),
    );
    server.on(PATH, (_request, response) => response.writeHead(403).end());
    await expect(new WheelStore(folder, remote).fetch(download())).rejects.toThrow(
      failing("package_source_unavailable", /answered 403/),
    );
    expect(server.count(PATH)).toBe(2);
  });

  test("a web page is no wheel", async () => {
    server.on(PATH, (_request, response) => {
      response.writeHead(200, { "content-type": "text/html; charset=utf-8" }).end("<h1>Sign in</h1>");
    });
    await expect(new WheelStore(folder, remote).fetch(download())).rejects.toThrow(
      failing("package_source_unavailable", /a web page instead of/),
    );
  });

  test.each([
    ["before the headers", () => {}],
    [
      "in the middle of the body",
      (_request: unknown, response: ServerResponse) => {
        response.writeHead(200, { "content-length": 1000 }).write("a");
      },
    ],
  ])("one that goes silent %s is given up", async (_when, handler) => {
    server.on(PATH, handler);
    const impatient = new HttpFetcher({ idleTimeoutMs: 50, attempts: 1 });
    await expect(new WheelStore(folder, impatient).fetch(download())).rejects.toThrow(
      failing("package_source_unavailable", /is too slow to answer/),
    );
    await impatient.close();
  });

  test("one that sends a byte now and then is given up when its time is over", async () => {
    server.on(PATH, (_request, response) => {
      response.writeHead(200);
      const timer = setInterval(() => response.write("a"), 10);
      response.on("close", () => clearInterval(timer));
    });
    const impatient = new HttpFetcher({ totalTimeoutMs: 200, attempts: 1 });
    await expect(new WheelStore(folder, impatient).fetch(download())).rejects.toThrow(
      failing("package_source_unavailable", /did not finish in time/),
    );
    await impatient.close();
  });

  test("no server there", async () => {
    const wanted = download();
    await server.close();
    await expect(new WheelStore(folder, remote).fetch(wanted)).rejects.toThrow(
      failing("package_source_unavailable", /^127\.0\.0\.1:\d+ cannot be reached\.$/),
    );
    server = await PackageServer.start();
  });
});

test("more bytes than allowed are refused, announced or not", async () => {
  const store = new WheelStore(folder, remote, { maxBytes: 1000 });
  await expect(store.fetch(download())).rejects.toThrow(failing("package_too_large", /larger than 1000 bytes/));
  server.on(PATH, (_request, response) => response.writeHead(200).end(wheel.bytes));
  await expect(store.fetch(download())).rejects.toThrow(failing("package_too_large", /larger than 1000 bytes/));
  expect(await readdir(path.join(folder, "partial"))).toEqual([]);
});

describe("redirects", () => {
  test("are followed, but not round in circles, nor away from HTTP", async () => {
    const store = new WheelStore(folder, remote);
    server.on("/moved", (_request, response) => response.writeHead(302, { location: PATH }).end());
    await store.fetch({ ...download(), location: { url: `${server.origin}/moved` } });
    server.on("/circle", (_request, response) => response.writeHead(302, { location: "/circle" }).end());
    const other = { ...download(), sha256: "0".repeat(64) };
    await expect(store.fetch({ ...other, location: { url: `${server.origin}/circle` } })).rejects.toThrow(/too often/);
    server.on("/file", (_request, response) => response.writeHead(302, { location: "file:///etc/passwd" }).end());
    await expect(store.fetch({ ...other, location: { url: `${server.origin}/file` } })).rejects.toThrow(/not allowed/);
  });

  test("credentials go to their own origin only, and into no message", async () => {
    const seen: Record<string, string | undefined> = {};
    const other = await PackageServer.start();
    other.on(PATH, (request, response) => {
      seen.other = request.headers.authorization;
      response.writeHead(403).end();
    });
    server.on("/private", (request, response) => {
      seen.own = request.headers.authorization;
      response.writeHead(302, { location: other.origin + PATH }).end();
    });
    const url = `${server.origin}/private`.replace("//", "//me:s3cret@");
    const error: unknown = await new WheelStore(folder, remote)
      .fetch({ ...download(), location: { url } })
      .catch((reason: unknown) => reason);
    await other.close();
    expect(seen).toEqual({ own: `Basic ${btoa("me:s3cret")}`, other: undefined });
    expect(String(error)).not.toContain("s3cret");
  });
});

describe("on disk", () => {
  test("a damaged file is noticed, and fetched again", async () => {
    const { path: file } = await new WheelStore(folder, remote).fetch(download());
    await writeFile(file, "damaged");
    const again = await new WheelStore(folder, remote).fetch(download());
    expect(wheel.bytes.equals(await readFile(again.path))).toBe(true);
    expect(server.count(PATH)).toBe(2);
  });

  test("a wheel of a folder is copied, its hash found out", async () => {
    const source = path.join(temporaryFolder(), wheel.filename);
    await writeFile(source, wheel.bytes);
    const store = new WheelStore(folder, remote);
    const stored = await store.fetch({ filename: wheel.filename, sha256: null, location: { path: source } });
    expect(stored.sha256).toBe(wheel.sha256);
    await expect(
      store.fetch({ filename: wheel.filename, sha256: null, location: { path: `${source}.gone` } }),
    ).rejects.toThrow(
      failing("package_source_unavailable", /^big-1-py3-none-any\.whl cannot be read from its folder\.$/),
    );
  });

  test("a place that cannot be written to is said, without its path", async () => {
    const file = path.join(folder, "file");
    await writeFile(file, "");
    const error: unknown = await new WheelStore(path.join(file, "packages"), remote)
      .fetch(download())
      .catch((reason: unknown) => reason);
    expect(error).toEqual(failing("package_storage", /^The server cannot store packages: /));
    expect(String(error)).not.toContain(folder);
  });
});
