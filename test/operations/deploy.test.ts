import { execFile, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { parse, parseAllDocuments } from "yaml";
import { trustProxy } from "../../src/http/middleware/trust-proxy.ts";
import { loadConfig, SETTINGS } from "../../src/shared/settings.ts";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { createClient, type TestClient } from "../support/client.ts";
import { hasNginx, startNginx } from "../support/nginx.ts";
import type { TestProxy } from "../support/proxy.ts";
import { freePort, hasRedis, startRedis, type TestRedis } from "../support/redis.ts";
import { readSecurityLog } from "../support/security-log.ts";
import { type ServerProcess, startServerProcess } from "../support/server-process.ts";
import { until } from "../support/until.ts";

const read = (name: string) => readFileSync(fileURLToPath(new URL(`../../deploy/${name}`, import.meta.url)), "utf8");
/** A connection is given up after 3 s, which a busy machine may need for its handshake. */
const PATIENCE = { timeout: 30_000, interval: 100 };
// biome-ignore lint/suspicious/noExplicitAny: what the files hold is what the tests are about.
type Data = any;

const DOCKERFILE = read("Dockerfile");
const COMPOSE: Data = parse(read("compose.yaml"), { merge: true });
const COMPOSE_TLS: Data = parse(read("compose.tls.yaml"), { merge: true });
const documents = (name: string): Data[] =>
  parseAllDocuments(read(name)).map((document) => {
    if (document.errors.length > 0) throw document.errors[0];
    return document.toJS();
  });
const MANIFESTS = documents("kubernetes/server.yaml");
const REDIS_MANIFESTS = documents("kubernetes/redis.yaml");
const KUSTOMIZATION: Data = parse(read("kubernetes/kustomization.yaml"));
const manifest = (kind: string, among = MANIFESTS): Data => among.find((candidate) => candidate.kind === kind);
const hasOpenssl = existsSync("/usr/bin/openssl");
/** Names that a shell or compose puts in. */
const variablesOf = (text: string) => new Set(Array.from(text.matchAll(/\$\{(\w+)/g), ([, name]) => name as string));

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
    String(value)
      .replace(/^\$\{.*/, "name:a-key-of-sixteen")
      .replace(/\$\{\w+:\?[^}]*\}/, "password"),
  ]);
  return loadConfig({ ...IMAGE_ENV, ...Object.fromEntries(values) });
}

test("Node gets the same flags from `npm start`, from the command that hands over to another Node, and in the container", () => {
  const root = (name: string) => readFileSync(fileURLToPath(new URL(`../../${name}`, import.meta.url)), "utf8");
  const flagsOf = (text: string) => text.match(/--[a-z-]+-space-size=\d+/g);
  const flags = flagsOf(JSON.parse(root("package.json")).scripts.start);
  expect(flags).not.toBeNull();
  expect(flagsOf(root("bin/pyodide-express.mjs"))).toEqual(flags);
  expect(flagsOf(DOCKERFILE)).toEqual(flags);
  // Node takes them.
  execFileSync(process.execPath, [...(flags as string[]), "-e", ""]);
});

describe("the container image", () => {
  test("sets variables that there are, to values that can be used", () => {
    for (const name of Object.keys(IMAGE_ENV)) expect(SETTINGS).toHaveProperty([name]);
    const doctor = /RUN (.*) node bin\/pyodide-express\.mjs doctor/.exec(DOCKERFILE)?.[1] ?? "";
    for (const pair of doctor.split(" ")) expect(SETTINGS).toHaveProperty([pair.split("=")[0] as string]);
    expect(configOf({})).toMatchObject({ HOST: "0.0.0.0", DATA_DIR: "/data", CACHE_DIR: "/app/cache" });
  });

  test("runs as nobody in particular, listens where it says, and copies what there is", () => {
    expect(DOCKERFILE).toMatch(/^USER 10001:10001$/m);
    expect(DOCKERFILE).toContain(`EXPOSE ${IMAGE_ENV.PORT}`);
    expect(DOCKERFILE).toContain(`fetch('http://127.0.0.1:${IMAGE_ENV.PORT}/ready')`);
    const root = readdirSync(fileURLToPath(new URL("../..", import.meta.url)));
    for (const [, sources = ""] of DOCKERFILE.matchAll(/^COPY (?!--from)(.*) \S+$/gm)) {
      for (const source of sources.split(" ")) expect(root).toContain(source);
    }
    const node = JSON.parse(readFileSync(fileURLToPath(new URL("../../package.json", import.meta.url)), "utf8"));
    const [, major] = /^FROM node:(\d+)-/m.exec(DOCKERFILE) ?? [];
    for (const version of Object.values<string>(node.optionalDependencies)) expect(version.split(".")[0]).toBe(major);
    expect(DOCKERFILE).toContain("bubblewrap");
  });
});

describe("compose.yaml", () => {
  const servers = ["server-a", "server-b"];

  test("gives servers variables that there are, a volume for what is written, and the cache to be read", () => {
    for (const name of servers) {
      const { environment, volumes, read_only, depends_on } = COMPOSE.services[name];
      for (const variable of Object.keys(environment)) expect(SETTINGS).toHaveProperty([variable]);
      const config = configOf(environment);
      expect(config.REDIS_URL).toBe("redis://:password@redis:6379");
      expect(read_only).toBe(true);
      const mounts = volumes.map((volume: string) => volume.split(":"));
      expect(mounts.map(([, folder, mode]: string[]) => [folder, mode])).toEqual([
        [config.DATA_DIR, undefined],
        [config.CACHE_DIR, "ro"],
      ]);
      for (const [volume] of mounts) expect(COMPOSE.volumes).toHaveProperty([volume]);
      expect(depends_on.cache).toEqual({ condition: "service_completed_successfully" });
    }
    // Each has data of its own; what fills the cache has no other place and no network.
    expect(new Set(servers.map((name) => COMPOSE.services[name].volumes[0])).size).toBe(servers.length);
    const { entrypoint, volumes, network_mode } = COMPOSE.services.cache;
    expect(entrypoint).toEqual(["cp", "-r", `${IMAGE_ENV.CACHE_DIR}/.`, "/cache/"]);
    expect([volumes, network_mode]).toEqual([["cache:/cache"], "none"]);
  });

  test("lets nobody have privileges, and only nginx be reached", () => {
    for (const [name, service] of Object.entries<Data>(COMPOSE.services)) {
      expect(service.cap_drop, name).toEqual(["ALL"]);
      expect(service.security_opt, name).toContain("no-new-privileges:true");
      expect(service.read_only, name).toBe(true);
      expect(service.privileged, name).toBeUndefined();
      expect(service.ports !== undefined, name).toBe(name === "nginx");
    }
    expect(COMPOSE.services.nginx.ports).toEqual([expect.stringMatching(/^127\.0\.0\.1:/)]);
  });

  test("demands the layers of the operating system, and gives servers the profile that they need for it", () => {
    for (const name of servers) {
      const { environment, security_opt } = COMPOSE.services[name];
      expect(environment.ISOLATION_REQUIRED).toBe("os");
      expect(security_opt).toContain("seccomp=./seccomp.json");
      expect(security_opt).toContain("apparmor=unconfined");
    }
    const names = JSON.parse(read("seccomp.json")).syscalls.flatMap((rule: Data) => rule.names);
    for (const call of ["unshare", "mount", "umount2", "pivot_root", "clone"]) expect(names).toContain(call);
  });

  test("believes nginx alone about addresses, and lets only it and the servers reach servers, and only servers reach Redis", () => {
    const { networks, services } = COMPOSE;
    const members = (network: string) =>
      Object.entries<Data>(services).flatMap(([name, service]) => {
        const joined = service.networks ?? [];
        return (Array.isArray(joined) ? joined : Object.keys(joined)).includes(network) ? [name] : [];
      });
    expect(members("front")).toEqual([...servers, "nginx"]);
    expect(members("store")).toEqual([...servers, "redis"]);
    expect([networks.front.internal, networks.store.internal]).toEqual([true, true]);
    const address = services.nginx.networks.front.ipv4_address;
    for (const name of servers) {
      const { environment } = services[name];
      expect(environment.TRUST_PROXY).toBe(address);
      expect(trustProxy(configOf(environment))).toEqual([address]);
      expect(environment.PACKAGE_INDEX_URL).toBe("none");
    }
  });

  test("runs images that are named by their digests, and a script prints each of them", () => {
    const script = read("pin-images.sh");
    const pinned = Array.from(script.matchAll(/^pin (\w+) (\S+)$/gm), ([, name, image]) => [image, name]);
    expect(pinned).toHaveLength(3);
    for (const [image, name] of pinned) {
      const text = image === "node:26-bookworm-slim" ? DOCKERFILE : read("compose.yaml");
      expect(text).toContain(`${image}@\${${name}`);
    }
    const from = Array.from(DOCKERFILE.matchAll(/^FROM (\S+)/gm), ([, image]) => image);
    expect(from).toHaveLength(2);
    for (const image of from) expect(image).toMatch(/^node:26-bookworm-slim@\$\{NODE_DIGEST\}$/);
    for (const [name, { image, build }] of Object.entries<Data>(COMPOSE.services)) {
      if (build) expect(build.args.NODE_DIGEST, name).toMatch(/^\$\{NODE_DIGEST:\?/);
      else expect(image, name).toMatch(/^[\w./-]+:[\w.-]+@\$\{\w+_DIGEST:\?/);
    }
    // Compose refuses to start without one: none of these has a default.
    for (const name of variablesOf(read("compose.yaml"))) expect(read("compose.yaml")).not.toMatch(`\\$\\{${name}:?-`);
  });

  test("has servers speak TLS with Redis where compose.tls.yaml is added, by an authority that they are told", () => {
    const { services } = COMPOSE_TLS;
    for (const name of servers) {
      const { REDIS_URL, NODE_EXTRA_CA_CERTS } = services[name].environment;
      expect(REDIS_URL).toMatch(/^rediss:\/\//);
      expect(services[name].volumes).toContain(`./tls/ca.crt:${NODE_EXTRA_CA_CERTS}:ro`);
    }
    expect(services.redis.volumes).toEqual(["./tls:/tls:ro"]);
  });

  describe.skipIf(!hasRedis)("its Redis, started by the same command", () => {
    const PASSWORD = "a-password-of-this-test";
    let folder: string;
    beforeAll(async () => {
      folder = temporaryFolder("deployed-redis");
    });

    async function start(command: string, ...options: string[]) {
      const text = command.replaceAll("$$", "$").replaceAll("/tls/", `${folder}/`).trim();
      const child = spawn("sh", ["-c", `${text} --dir ${folder} ${options.join(" ")}`], {
        env: { ...process.env, REDIS_PASSWORD: PASSWORD },
        stdio: ["ignore", "pipe", "inherit"],
        detached: true,
      });
      onTestFinished(async () => {
        // The shell and what it has become.
        process.kill(-Number(child.pid), "SIGKILL");
        if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
      });
      let said = "";
      for await (const chunk of child.stdout) {
        said += chunk;
        if (/Ready to accept connections/.test(said)) break;
      }
      child.stdout.resume();
      return Number(child.pid);
    }
    /** In a process of its own, since Node reads NODE_EXTRA_CA_CERTS when it starts. */
    async function ask(url: string, env: Record<string, string> = {}): Promise<string> {
      const module = fileURLToPath(new URL("../../src/shared/redis-connection.ts", import.meta.url));
      const source = `
        import { RedisConnection } from ${JSON.stringify(module)};
        const connection = new RedisConnection({ url: ${JSON.stringify(url)}, timeoutMs: 2000 });
        const policy = connection.attempt((redis) => redis.config("GET", "maxmemory-policy"));
        process.stdout.write(await policy.then(String, (error) => error.code));
        connection.close();`;
      const args = ["--input-type=module-typescript", "-e", source];
      const options = { env: { ...process.env, ...env }, timeout: 60_000 };
      return (await promisify(execFile)(process.execPath, args, options)).stdout;
    }

    test("asks for the password, which is in no command line, and never evicts", { timeout: 60_000 }, async () => {
      const port = await freePort();
      const { command } = COMPOSE.services.redis;
      expect(command).toHaveLength(1);
      await start(command[0], "--port", String(port), "--save ''");
      await expect
        .poll(() => ask(`redis://:${PASSWORD}@127.0.0.1:${port}`), PATIENCE)
        .toBe("maxmemory-policy,noeviction");
      expect(await ask(`redis://127.0.0.1:${port}`)).toBe("store_unavailable");
      expect(await ask(`redis://:another-password@127.0.0.1:${port}`)).toBe("store_unavailable");
      const lines = readdirSync("/proc")
        .filter((name) => /^\d+$/.test(name))
        .map((pid) => {
          try {
            return readFileSync(`/proc/${pid}/cmdline`, "utf8");
          } catch {
            return "";
          }
        });
      expect(lines.filter((line) => line.includes(`redis-server`) && line.includes(PASSWORD))).toEqual([]);
    });

    test.skipIf(!hasOpenssl)("speaks nothing but TLS where it is told to", { timeout: 60_000 }, async () => {
      const openssl = (line: string) => execFileSync("openssl", line.split(" "), { cwd: folder, stdio: "pipe" });
      const key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
      openssl(`req -x509 ${key} -days 1 -keyout ca.key -out ca.crt -subj /CN=authority`);
      openssl(
        `req ${key} -keyout redis.key -out redis.csr -subj /CN=redis -addext subjectAltName=DNS:redis,DNS:localhost`,
      );
      openssl(
        "x509 -req -in redis.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 1 -copy_extensions copy -out redis.crt",
      );
      const port = await freePort();
      await start(COMPOSE_TLS.services.redis.command[0].replace("--tls-port 6379", `--tls-port ${port}`), "--save ''");
      const knowing = { NODE_EXTRA_CA_CERTS: path.join(folder, "ca.crt") };
      await expect
        .poll(() => ask(`rediss://:${PASSWORD}@localhost:${port}`, knowing), PATIENCE)
        .toBe("maxmemory-policy,noeviction");
      expect(await ask(`rediss://:${PASSWORD}@localhost:${port}`)).toBe("store_unavailable");
      expect(await ask(`redis://:${PASSWORD}@localhost:${port}`, knowing)).toBe("store_unavailable");
    });
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
    expect(secret[1]?.[1]).toMatch(/^redis:\/\/:\w+@redis:6379$/);
    for (const name of [...Object.keys(env), ...secret.map(([name]) => name as string)]) {
      expect(SETTINGS).toHaveProperty([name]);
    }
    const config = configOf({ ...env, ...Object.fromEntries(secret) });
    const mounts = server.volumeMounts.map(({ mountPath }: Data) => mountPath);
    expect(mounts).toEqual([config.DATA_DIR, config.CACHE_DIR, "/tmp"]);
    expect(server.ports[0].containerPort).toBe(config.PORT);
    // Read where it runs, filled by what runs before it.
    const cacheOf = (container: Data) => container.volumeMounts.find(({ name }: Data) => name === "cache");
    expect(cacheOf(server)).toEqual({ name: "cache", mountPath: config.CACHE_DIR, readOnly: true });
    expect(cacheOf(pod.initContainers[0])).toEqual({ name: "cache", mountPath: "/cache" });
    expect(pod.initContainers[0].command).toEqual(["cp", "-r", `${IMAGE_ENV.CACHE_DIR}/.`, "/cache/"]);
  });

  test("demand the layers of the operating system, and name the profiles that they need for it", () => {
    const env = Object.fromEntries(server.env.map(({ name, value }: Data) => [name, value]));
    expect(env.ISOLATION_REQUIRED).toBe("os");
    const profile = "profiles/pyodide-express.json";
    expect(pod.securityContext.seccompProfile).toEqual({ type: "Localhost", localhostProfile: profile });
    expect(read("kubernetes/server.yaml")).toContain(`deploy/seccomp.json as /var/lib/kubelet/seccomp/${profile}`);
    const { localhostProfile } = pod.securityContext.appArmorProfile;
    expect(read("apparmor.profile")).toMatch(new RegExp(`^profile ${localhostProfile} `, "m"));
    expect(pod.hostUsers).toBe(false);
  });

  test("let the ingress controller alone reach servers, servers alone reach Redis, and nothing but the cluster's resolver be asked", () => {
    const { ingress, egress } = manifest("NetworkPolicy").spec;
    expect(server.env).toContainEqual({ name: "TRUST_PROXY", value: "1" });
    expect(ingress).toHaveLength(1);
    expect(ingress[0].from[0]).toHaveProperty("namespaceSelector");
    expect(ingress[0].from[0]).toHaveProperty("podSelector");
    for (const rule of egress) expect(rule.to?.length, JSON.stringify(rule)).toBeGreaterThan(0);
    const dns = egress.find(({ ports }: Data) => ports.some(({ port }: Data) => port === 53));
    expect(dns.to).toEqual([
      {
        namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": "kube-system" } },
        podSelector: { matchLabels: { "k8s-app": "kube-dns" } },
      },
    ]);
    const redis = manifest("NetworkPolicy", REDIS_MANIFESTS).spec;
    expect(redis.ingress).toEqual([
      { from: [{ podSelector: manifest("Deployment").spec.selector }], ports: [{ port: "redis" }] },
    ]);
    expect([redis.policyTypes, redis.egress]).toEqual([["Ingress", "Egress"], []]);
    expect(redis.podSelector.matchLabels).toEqual(
      manifest("StatefulSet", REDIS_MANIFESTS).spec.template.metadata.labels,
    );
    expect(egress[0].to[0].podSelector).toEqual(redis.podSelector);
  });

  test("have a Redis with a password that is in no command line, and images by digest", () => {
    const {
      containers: [redis],
      securityContext,
      hostUsers,
    } = manifest("StatefulSet", REDIS_MANIFESTS).spec.template.spec;
    expect(redis.args[0]).toMatch(
      /^printf 'requirepass %s\\n' "\$REDIS_PASSWORD" \| exec redis-server - .*noeviction/s,
    );
    expect(redis.env[0].valueFrom.secretKeyRef).toEqual({ name: "redis", key: "password" });
    expect(redis.securityContext.capabilities).toEqual({ drop: ["ALL"] });
    expect([securityContext.runAsNonRoot, hostUsers]).toEqual([true, false]);
    expect(KUSTOMIZATION.resources).toEqual(["server.yaml", "redis.yaml"]);
    const used = [...containers, redis].map(({ image }) => image);
    for (const image of used) expect(KUSTOMIZATION.images.map(({ name }: Data) => name)).toContain(image);
    for (const { digest } of KUSTOMIZATION.images) expect(digest).toMatch(/^sha256:[0-9a-f]{64}$/);
  });

  // https://kubernetes.io/docs/concepts/security/pod-security-standards/
  test("meet the restricted pod security standard", () => {
    expect(manifest("Namespace").metadata.labels["pod-security.kubernetes.io/enforce"]).toBe("restricted");
    expect(pod.securityContext).toMatchObject({ runAsNonRoot: true, seccompProfile: { type: "Localhost" } });
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
  let nginx: TestProxy;
  let alice: TestClient;

  const settings = (): Record<string, string> => ({
    REDIS_URL: redis.url,
    API_KEYS: [...NAMES.map((name) => `${name}:${keyOf(name)}`), "root:rootrootrootroot:admin"].join(","),
    // Here nginx is on this machine.
    TRUST_PROXY: "127.0.0.1",
    POOL_SIZE: "1",
  });

  beforeAll(async () => {
    folder = temporaryFolder("deploy");
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
    // Not a loop over the stream: leaving that goes away too early.
    const reader = (response.body as ReadableStream).pipeThrough(new TextDecoderStream()).getReader();
    // The code never ends: an event that waited for more would not be here.
    while (!events.includes("begun")) events += (await reader.read()).value;
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
