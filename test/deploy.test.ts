import { readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse, parseAllDocuments } from "yaml";
import { loadConfig, SETTINGS } from "../src/config.ts";
import { createClient, type TestClient } from "./support/client.ts";
import { hasNginx, startNginx, type TestNginx } from "./support/nginx.ts";
import { hasRedis, startRedis, type TestRedis } from "./support/redis.ts";
import { readSecurityLog } from "./support/security-log.ts";
import { type ServerProcess, startServerProcess } from "./support/server-process.ts";
import { until } from "./support/until.ts";

const read = (name: string) => readFileSync(fileURLToPath(new URL(`../deploy/${name}`, import.meta.url)), "utf8");
// biome-ignore lint/suspicious/noExplicitAny: what the files hold is what the tests are about.
type Data = any;

const DOCKERFILE = read("Dockerfile");
const COMPOSE: Data = parse(read("compose.yaml"), { merge: true });
const MANIFESTS: Data[] = parseAllDocuments(read("kubernetes/server.yaml")).map((document) => {
  if (document.errors.length > 0) throw document.errors[0];
  return document.toJS();
});
const manifest = (kind: string): Data => MANIFESTS.find((candidate) => candidate.kind === kind);

/** `ENV A=1 B=2` of the image that is made last. */
const IMAGE_ENV = Object.fromEntries(
  [...DOCKERFILE.slice(DOCKERFILE.lastIndexOf("\nFROM ")).matchAll(/^ENV (.*)$/gm)].flatMap(([, line = ""]) =>
    line.split(" ").map((pair) => pair.split("=") as [string, string]),
  ),
);

/** What a server is started with; `${…}` is for whoever deploys. */
function configOf(env: Record<string, unknown>) {
  const values = Object.entries(env).map(([name, value]) => [
    name,
    String(value).replace(/^\$\{.*/, "name:a-key-of-sixteen"),
  ]);
  return loadConfig({ ...IMAGE_ENV, ...Object.fromEntries(values) });
}

describe("the container image", () => {
  test("sets variables that there are, to values that can be used", () => {
    for (const name of Object.keys(IMAGE_ENV)) expect(SETTINGS).toHaveProperty([name]);
    const doctor = /RUN (.*) node src\/cli\.ts doctor/.exec(DOCKERFILE)?.[1] ?? "";
    for (const pair of doctor.split(" ")) expect(SETTINGS).toHaveProperty([pair.split("=")[0] as string]);
    expect(configOf({})).toMatchObject({ HOST: "0.0.0.0", DATA_DIR: "/data", CACHE_DIR: "/app/cache" });
  });

  test("runs as nobody in particular, listens where it says, and copies what there is", () => {
    expect(DOCKERFILE).toMatch(/^USER 10001:10001$/m);
    expect(DOCKERFILE).toContain(`EXPOSE ${IMAGE_ENV.PORT}`);
    expect(DOCKERFILE).toContain(`fetch('http://127.0.0.1:${IMAGE_ENV.PORT}/ready')`);
    const root = readdirSync(fileURLToPath(new URL("..", import.meta.url)));
    for (const [, sources = ""] of DOCKERFILE.matchAll(/^COPY (?!--from)(.*) \S+$/gm)) {
      for (const source of sources.split(" ")) expect(root).toContain(source);
    }
    const node = JSON.parse(readFileSync(fileURLToPath(new URL("../package.json", import.meta.url)), "utf8"));
    const [, major] = /^FROM node:(\d+)-/m.exec(DOCKERFILE) ?? [];
    for (const version of Object.values<string>(node.optionalDependencies)) expect(version.split(".")[0]).toBe(major);
  });
});

describe("compose.yaml", () => {
  const servers = ["server-a", "server-b"];

  test("gives servers variables that there are, and a volume for each folder that is written to", () => {
    for (const name of servers) {
      const { environment, volumes, read_only } = COMPOSE.services[name];
      for (const variable of Object.keys(environment)) expect(SETTINGS).toHaveProperty([variable]);
      const config = configOf(environment);
      expect(config.REDIS_URL).toBe("redis://redis:6379");
      expect(read_only).toBe(true);
      const mounts = volumes.map((volume: string) => volume.split(":"));
      expect(mounts.map(([, folder]: string[]) => folder)).toEqual([config.DATA_DIR, config.CACHE_DIR]);
      for (const [volume] of mounts) expect(COMPOSE.volumes).toHaveProperty([volume]);
    }
    const used = servers.flatMap((name) => COMPOSE.services[name].volumes);
    expect(new Set(used).size).toBe(used.length);
  });

  test("lets nobody have privileges, and only nginx be reached", () => {
    for (const [name, service] of Object.entries<Data>(COMPOSE.services)) {
      expect(service.cap_drop, name).toEqual(["ALL"]);
      expect(service.security_opt, name).toEqual(["no-new-privileges:true"]);
      expect(service.read_only, name).toBe(true);
      expect(service.ports !== undefined, name).toBe(name === "nginx");
    }
    expect(COMPOSE.services.redis.command.join(" ")).toMatch(/--appendonly yes .*--maxmemory-policy noeviction/);
  });

  test("and nginx.conf mean the same servers and ports", () => {
    const nginx = read("nginx.conf");
    const upstreams = [...nginx.matchAll(/^\s*server (\S+):(\d+) /gm)].map(([, host, port]) => [host, port]);
    expect(upstreams).toEqual(servers.map((name) => [name, IMAGE_ENV.PORT]));
    const [, listened] = /listen (\d+);/.exec(nginx) ?? [];
    expect(COMPOSE.services.nginx.ports[0].split(":").at(-1)).toBe(listened);
  });
});

describe("the Kubernetes manifests", () => {
  const { spec: pod } = manifest("Deployment").spec.template;
  const containers: Data[] = [...pod.initContainers, ...pod.containers];
  const [server] = pod.containers;

  test("set variables that there are, and those of the secret they ask for", () => {
    const env = Object.fromEntries(server.env.map(({ name, value }: Data) => [name, value]));
    const [, literals = ""] = /create secret generic server (.*)$/m.exec(read("kubernetes/server.yaml")) ?? [];
    const secret = [...literals.matchAll(/--from-literal=([A-Z_]+)=(\S+)/g)].map(([, name, value]) => [name, value]);
    expect(secret.map(([name]) => name)).toEqual(["API_KEYS", "REDIS_URL"]);
    for (const name of [...Object.keys(env), ...secret.map(([name]) => name as string)]) {
      expect(SETTINGS).toHaveProperty([name]);
    }
    const config = configOf({ ...env, ...Object.fromEntries(secret) });
    const mounts = server.volumeMounts.map(({ mountPath }: Data) => mountPath);
    expect(mounts).toEqual([config.DATA_DIR, config.CACHE_DIR, "/tmp"]);
    expect(server.ports[0].containerPort).toBe(config.PORT);
  });

  // https://kubernetes.io/docs/concepts/security/pod-security-standards/
  test("meet the restricted pod security standard", () => {
    expect(manifest("Namespace").metadata.labels["pod-security.kubernetes.io/enforce"]).toBe("restricted");
    expect(pod.securityContext).toMatchObject({ runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } });
    expect(pod.securityContext.runAsUser).toBeGreaterThan(0);
    for (const name of ["hostNetwork", "hostPID", "hostIPC"]) expect(pod[name] ?? false).toBe(false);
    for (const { name, securityContext, ports = [] } of containers) {
      expect(securityContext, name).toEqual({
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ["ALL"] },
      });
      for (const port of ports) expect(port.hostPort).toBeUndefined();
    }
    for (const { name, ...source } of pod.volumes) expect(Object.keys(source), name).toEqual(["emptyDir"]);
    for (const { name, volumeMounts, resources } of containers) {
      for (const mount of volumeMounts) expect(pod.volumes.map((volume: Data) => volume.name)).toContain(mount.name);
      expect(resources.limits.memory, name).toBeDefined();
    }
  });

  test("refer to each other by names and ports that there are", () => {
    const { labels } = manifest("Deployment").spec.template.metadata;
    for (const kind of ["Service", "PodDisruptionBudget", "NetworkPolicy"]) {
      const { selector, podSelector } = manifest(kind).spec;
      expect((podSelector ?? selector).matchLabels ?? selector, kind).toEqual(labels);
    }
    expect(manifest("Service").spec.ports[0].targetPort).toBe(server.ports[0].name);
    expect(manifest("HorizontalPodAutoscaler").spec.scaleTargetRef.name).toBe(manifest("Deployment").metadata.name);
    for (const { kind, metadata } of MANIFESTS) {
      if (kind !== "Namespace") expect(metadata.namespace).toBe(manifest("Namespace").metadata.name);
    }
  });
});

if (!hasNginx) console.warn("There is no nginx on this machine: its tests are skipped.");

// So many that one server alone does not get them all by chance.
const NAMES = ["alice", ...Array.from({ length: 30 }, (_, i) => `caller${i}`)];
const keyOf = (name: string) => name.repeat(5);

describe.skipIf(!hasNginx || !hasRedis)("two servers behind nginx, as deployed", () => {
  let folder: string;
  let redis: TestRedis;
  let servers: ServerProcess[];
  let nginx: TestNginx;
  let alice: TestClient;

  const settings = (): Record<string, string> => ({
    REDIS_URL: redis.url,
    API_KEYS: [...NAMES.map((name) => `${name}:${keyOf(name)}`), "root:rootrootrootroot:admin"].join(","),
    TRUST_PROXY: COMPOSE.services["server-a"].environment.TRUST_PROXY,
    POOL_SIZE: "1",
  });

  beforeAll(async () => {
    folder = await mkdtemp(path.join(os.tmpdir(), "deploy-"));
    redis = await startRedis();
    servers = [];
    for (const name of ["a", "b"]) servers.push(await startServerProcess(path.join(folder, name), settings()));
    const [a, b] = servers.map(({ url }) => new URL(url).host) as [string, string];
    nginx = await startNginx({ "server-a": a, "server-b": b });
    alice = createClient(nginx.url, { authorization: `Bearer ${keyOf("alice")}` });
  });

  afterAll(async () => {
    await nginx?.[Symbol.asyncDispose]();
    for (const server of servers ?? []) await server.kill();
    await redis?.stop();
    await rm(folder, { recursive: true, force: true });
  });

  /** How many sandboxes of a server are at work; undefined if it is away. */
  async function busyAt({ url }: ServerProcess): Promise<number | undefined> {
    const administrator = createClient(url, { "x-api-key": "rootrootrootroot" });
    return await administrator.get("/api/status").then(
      ({ body }) => body.pool.busy,
      () => undefined,
    );
  }

  /** The server that is running something now, asked past nginx. */
  async function busyServer(): Promise<ServerProcess> {
    let busy: ServerProcess | undefined;
    await until(async () => {
      for (const server of servers) {
        if ((await busyAt(server)) === 1) busy = server;
      }
      return busy !== undefined;
    });
    return busy as ServerProcess;
  }

  test("callers are spread over both, and each stays with one, whichever header its key comes in", async () => {
    for (const name of NAMES) await createClient(nginx.url, { "x-api-key": keyOf(name) }).get("/api/status");
    for (const header of [{ "x-api-key": keyOf("alice") }, { authorization: `Bearer ${keyOf("alice")}` }]) {
      const before = await requestsTo("/api/uploaded-files");
      for (let i = 0; i < 6; i++) await createClient(nginx.url, header).get("/api/uploaded-files");
      const after = await requestsTo("/api/uploaded-files");
      expect(after.map((count, i) => count - (before[i] ?? 0)).sort()).toEqual([0, 6]);
    }
    for (const count of await requestsTo("/api/status")) expect(count).toBeGreaterThan(0);
  });

  /** How many requests each server has answered. */
  async function requestsTo(route: string): Promise<number[]> {
    const metrics = servers.map(({ url }) => createClient(url, { "x-api-key": "rootrootrootroot" }).get("/metrics"));
    return (await Promise.all(metrics)).map(({ body }) => {
      const lines = (body as string).split("\n").filter((line) => line.includes(`route="${route}"`));
      return lines.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
    });
  }

  test("events come while the code runs, and a client that goes away stops it", async () => {
    const closing = new AbortController();
    const response = await fetch(`${nginx.url}/api/execute-stream`, {
      method: "POST",
      headers: { authorization: `Bearer ${keyOf("alice")}`, "content-type": "application/json" },
      body: JSON.stringify({ code: "print('begun')\nwhile True: pass", timeout: 60_000 }),
      signal: closing.signal,
    });
    let events = "";
    for await (const text of (response.body as ReadableStream).pipeThrough(new TextDecoderStream())) {
      events += text;
      // The code never ends: an event that waited for more would not be here.
      if (events.includes("begun")) break;
    }
    const server = await busyServer();
    closing.abort();
    await until(async () => {
      return (await busyAt(server)) === 0;
    });
  });

  test("an upload of the largest size goes through, and one that is too large is refused by us", async () => {
    const { MAX_FILE_SIZE } = loadConfig({});
    expect((await alice.upload("large.txt", Buffer.alloc(MAX_FILE_SIZE, "x"))).status).toBe(200);
    expect((await alice.upload("larger.txt", Buffer.alloc(MAX_FILE_SIZE + 1, "x"))).body).toMatchObject({
      error: "File size too large. Maximum size: 10MB",
    });
    const body = JSON.stringify({ code: "1", context: { text: "x".repeat(30 * 2 ** 20) } });
    expect(await alice.post("/api/execute", body)).toMatchObject({ status: 413, body: { success: false } });
  });

  test("what a client says of its address is not believed", async () => {
    const code = "'where from'";
    await alice.post("/api/execute", { code }, { "x-forwarded-for": "203.0.113.7" });
    const logs = await Promise.all(
      ["a", "b"].map((name) => readSecurityLog({ LOG_DIR: path.join(folder, name, "logs") }).catch(() => [])),
    );
    const events = logs.flat().filter(({ details }) => (details as Data).codeLength === code.length);
    expect(events.map(({ ip }) => ip)).toEqual(["127.0.0.1"]);
  });

  test("code whose server dies is not sent to the other one; what comes next is", async () => {
    const code = "open('ran', 'w').write('x')\nimport time; time.sleep(3)";
    const running = alice.post("/api/execute", { code });
    const server = await busyServer();
    await server.kill();
    expect((await running).status).toBe(502);
    expect((await alice.post("/api/execute", { code: "import os; os.path.exists('ran')" })).body.result).toBe(false);
  });
});
