import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { createServer as createTlsServer } from "node:https";
import net, { type AddressInfo } from "node:net";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { brotliCompressSync, deflateSync, gzipSync, zstdCompressSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { temporaryFolder } from "../shared/testing/temporary-folder.ts";
import { HttpFetcher, type HttpFetcherOptions } from "./fetcher.ts";
import { PackageServer } from "./testing/package-server.ts";
import { startProxy } from "./testing/proxy.ts";

const run = promisify(execFile);
const OPTIONS = { accept: "*/*", maxBytes: 1_000_000 };
let server: PackageServer;
let opened: HttpFetcher[] = [];

beforeEach(async () => {
  server = await PackageServer.start();
});
afterEach(async () => {
  for (const remote of opened) await remote.close();
  opened = [];
  await server.close();
});

function remote(options: Partial<HttpFetcherOptions> = {}): HttpFetcher {
  const made = new HttpFetcher({ retryDelayMs: 1, ...options });
  opened.push(made);
  return made;
}

const textOf = async (from: HttpFetcher, address: string) => (await from.bytes(address, OPTIONS))?.bytes.toString();
const serve = (place: string, text: string | Buffer, headers: Record<string, string> = {}) =>
  server.on(place, (_request, response) => response.writeHead(200, headers).end(text));

describe("proxies", () => {
  const through = (proxies: Partial<HttpFetcherOptions["proxies"]>) =>
    remote({ attempts: 1, proxies: { HTTP_PROXY: "", HTTPS_PROXY: "", NO_PROXY: "", ...proxies } });

  test("are asked for what they are for, with their login", async () => {
    serve("/a", "text");
    await using proxy = await startProxy("me:p@ss");
    const HTTP_PROXY = proxy.address.replace("//", "//me:p%40ss@");
    expect(await textOf(through({ HTTP_PROXY }), `${server.origin}/a`)).toBe("text");
    expect(proxy.requests).toEqual([`GET ${server.origin}/a`]);
    expect(await textOf(through({ HTTP_PROXY, NO_PROXY: "localhost,127.0.0.1" }), `${server.origin}/a`)).toBe("text");
    expect(await textOf(through({}), `${server.origin}/a`)).toBe("text");
    expect(proxy.requests).toHaveLength(1);
  });

  test("look names up themselves", async () => {
    await using proxy = await startProxy();
    const asked = textOf(through({ HTTP_PROXY: proxy.address }), "http://index.invalid/simple/");
    await expect(asked).rejects.toThrow("index.invalid answered 502");
    expect(proxy.requests).toEqual(["GET http://index.invalid/simple/"]);
  });

  test("that refuse a tunnel, or are not there, are told of without their login", async () => {
    await using proxy = await startProxy("me:secret");
    const HTTPS_PROXY = proxy.address.replace("//", "//me:wrong@");
    const refused = textOf(through({ HTTPS_PROXY }), "https://index.invalid/simple/");
    await expect(refused).rejects.toThrow(/^index\.invalid cannot be reached: the proxy answered 407\.$/);
    expect(proxy.requests).toEqual(["CONNECT index.invalid:443"]);
    const nowhere = textOf(through({ HTTPS_PROXY: "http://me:secret@127.0.0.1:9" }), "https://index.invalid/");
    await expect(nowhere).rejects.toThrow(/^index\.invalid cannot be reached\.$/);
  });
});

describe("logins in addresses", () => {
  test.each([
    ["token@", "token:"],
    [":token@", ":token"],
    ["me:50%off@", "me:50%off"],
    ["me:%e4%bd%a0%zz@", "me:你%zz"],
    ["a%40b.c:p%3Aw%2F@", "a@b.c:p:w/"],
    ["", null],
  ])("%s", async (login, expected) => {
    let seen: string | undefined;
    server.on("/a", (request, response) => {
      seen = request.headers.authorization;
      response.end("x");
    });
    await textOf(remote(), `${server.origin.replace("//", `//${login}`)}/a`);
    expect(seen).toBe(expected === null ? undefined : `Basic ${Buffer.from(expected).toString("base64")}`);
  });
});

describe("what was compressed unasked", () => {
  const text = "plain text ".repeat(1000);
  test.each([
    ["gzip", gzipSync(text)],
    ["x-gzip", gzipSync(text)],
    ["deflate", deflateSync(text)],
    ["br", brotliCompressSync(text)],
    ["zstd", zstdCompressSync(text)],
    ["identity", Buffer.from(text)],
  ])("%s", async (encoding, bytes) => {
    serve("/a", bytes, { "content-encoding": encoding });
    expect(await textOf(remote(), `${server.origin}/a`)).toBe(text);
  });

  test("is bounded by what it unpacks to, and told of where it is damaged", async () => {
    serve("/bomb", gzipSync(Buffer.alloc(50_000_000)), { "content-encoding": "gzip" });
    await expect(textOf(remote(), `${server.origin}/bomb`)).rejects.toThrow("sent more than 1000000 bytes");
    serve("/damaged", Buffer.from("no gzip"), { "content-encoding": "gzip" });
    await expect(textOf(remote({ attempts: 2 }), `${server.origin}/damaged`)).rejects.toThrow(
      "sent data that cannot be unpacked",
    );
    serve("/odd", "x", { "content-encoding": "compress" });
    await expect(textOf(remote(), `${server.origin}/odd`)).rejects.toThrow("sent data in the encoding compress");
  });
});

test.each([60_000, 66_000, 90_000, 200_000, 3_000_000])(
  "a body of %i bytes that ends with its connection, while it is read slowly, ends neither early nor the process",
  async (size) => {
    const closing = net.createServer((socket) => {
      socket.on("error", () => {});
      socket.once("data", () => {
        socket.write("HTTP/1.0 200 OK\r\n\r\n");
        socket.end(Buffer.alloc(size));
      });
    });
    await new Promise<void>((resolve) => closing.listen(0, "127.0.0.1", resolve));
    const { port } = closing.address() as AddressInfo;
    try {
      const received = await remote().get(`http://127.0.0.1:${port}/`, {}, async ({ body }) => {
        await new Promise((resolve) => setTimeout(resolve, 200));
        let bytes = 0;
        for await (const chunk of body) bytes += chunk.length;
        return bytes;
      });
      expect(received).toBe(size);
    } finally {
      closing.close();
    }
  },
);

describe("a host that says nothing", () => {
  test("is given up once for all who ask, remembered, and asked again later", async () => {
    const sockets: net.Socket[] = [];
    const silent = net.createServer((socket) => void sockets.push(socket));
    await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
    const { port } = silent.address() as AddressInfo;
    try {
      const patient = remote({ silentMs: 300, idleTimeoutMs: 60_000 });
      const ask = (name: string) => patient.bytes(`http://127.0.0.1:${port}/${name}`, OPTIONS);
      const together = await Promise.allSettled(["a", "b", "c", "d"].map(ask));
      for (const result of together) {
        expect(result).toMatchObject({ reason: { message: `127.0.0.1:${port} does not answer.` } });
      }
      const connections = sockets.length;
      await expect(ask("e")).rejects.toThrow("does not answer");
      expect(sockets.length).toBe(connections);
    } finally {
      for (const socket of sockets) socket.destroy();
      silent.close();
    }
  });

  test("is not one that is only slow, once it has answered", async () => {
    serve("/quick", "x");
    server.on("/slow", (_request, response) => setTimeout(() => response.end("slow"), 500));
    const patient = remote({ silentMs: 250 });
    expect(await textOf(patient, `${server.origin}/quick`)).toBe("x");
    expect(await textOf(patient, `${server.origin}/slow`)).toBe("slow");
  });

  test("in the middle of a body is given as much time as any", async () => {
    server.on("/a", (_request, response) => {
      response.write("first ");
      setTimeout(() => response.end("last"), 500);
    });
    expect(await textOf(remote({ silentMs: 250 }), `${server.origin}/a`)).toBe("first last");
  });
});

test("NODE_EXTRA_CA_CERTS has a company's own certificates trusted, and files behind https at http are refused as such", async ({
  skip,
}) => {
  const folder = temporaryFolder();
  const file = (name: string) => path.join(folder, name);
  const made = await run("openssl", [
    ...["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"],
    ...["-addext", "subjectAltName=DNS:localhost", "-keyout", file("key.pem"), "-out", file("cert.pem")],
  ]).catch(() => null);
  if (made === null) skip("openssl is not installed");
  const tls = createTlsServer({ key: await readFile(file("key.pem")), cert: await readFile(file("cert.pem")) });
  const link = `<a href="http://files.example:81/demo-1-py3-none-any.whl#sha256=${"0".repeat(64)}">demo</a>`;
  tls.on("request", (_request, response) => response.writeHead(200, { "content-type": "text/html" }).end(link));
  await new Promise<void>((resolve) => tls.listen(0, "127.0.0.1", resolve));
  try {
    const address = `https://localhost:${(tls.address() as AddressInfo).port}/`;
    const module = (name: string) => JSON.stringify(fileURLToPath(new URL(name, import.meta.url)));
    const script = `import { HttpFetcher } from ${module("fetcher.ts")};
      import { IndexSource } from ${module("sources/package-index.ts")};
      import { loadPyodideLock } from ${module("sources/pyodide-lock.ts")};
      const remote = new HttpFetcher({ attempts: 1 });
      const { python } = await loadPyodideLock();
      await new IndexSource(${JSON.stringify(address)}, python, remote, null).find("demo")
        .then(({ unusable }) => console.log(unusable[0].detail), (error) => console.log(error.message));
      await remote.close();`;
    const ask = async (env: NodeJS.ProcessEnv) =>
      (await run(process.execPath, ["--input-type=module", "--eval", script], { env })).stdout.trim();
    expect(await ask({ NODE_EXTRA_CA_CERTS: file("cert.pem") })).toBe(
      "at http://files.example:81, behind an index of https",
    );
    expect(await ask({})).toMatch(/has a certificate that cannot be trusted/);
  } finally {
    tls.close();
  }
});
