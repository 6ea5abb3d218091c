import { execFileSync, spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { beforeEach, describe, expect, test } from "vitest";
import { DiskSessions } from "../../src/sessions/disk-store.ts";
import { sharesOf } from "../../src/sessions/shares.ts";
import { FolderLock } from "../../src/shared/folder-lock.ts";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { DiskStatistics } from "../../src/statistics/disk-store.ts";
import { DiskWorkspaces } from "../../src/workspaces/disk-workspaces.ts";
import { hasRedis, startRedis } from "../support/redis.ts";
import { startTestServer } from "../support/server.ts";
import { canMount, smallDisk } from "../support/small-disk.ts";

if (!canMount) console.warn("This process may not mount file systems: tests of those are skipped.");

const LOCK = fileURLToPath(new URL("../../src/shared/folder-lock.ts", import.meta.url));
const isRoot = process.getuid?.() === 0;
const hasCompiler = spawnSync("gcc", ["--version"]).status === 0;

let folder: string;
beforeEach(() => {
  folder = temporaryFolder("start-up");
});

/** What each of the stores says that cannot be opened in a folder. */
const STORES: [name: string, open: (dir: string) => Promise<void>][] = [
  [
    "sessions",
    async (dir) => {
      const store = await DiskSessions.open({ directory: path.join(dir, "sessions"), shares: sharesOf(2 ** 30, 1) });
      await store.close();
    },
  ],
  [
    "workspaces",
    async (dir) => {
      await new DiskWorkspaces({ directory: path.join(dir, "workspaces"), maxBytes: 1, maxFiles: 1 }).close();
    },
  ],
  [
    "statistics",
    async (dir) => {
      new DiskStatistics(dir).close();
    },
  ],
];

async function messageOf(action: () => Promise<unknown> | unknown): Promise<string> {
  try {
    await action();
  } catch (error) {
    expect(error).toMatchObject({ name: "StartupError" });
    return (error as Error).message;
  }
  return "";
}

/** Locks a folder in another process, by another user or with a library before libc. */
function lockElsewhere(options: { uid?: number; env?: Record<string, string> } = {}): string {
  const code = `import { FolderLock } from ${JSON.stringify(LOCK)};
    try { new FolderLock(${JSON.stringify(folder)}); console.log("locked"); } catch (error) { console.log(error.message); }`;
  const { uid, env } = options;
  const child = spawnSync(process.execPath, ["--input-type=module", "-e", code], {
    encoding: "utf8",
    env: { ...process.env, ...env },
    ...(uid !== undefined && { uid, gid: uid }),
  });
  return child.stdout.trim() || child.stderr;
}

describe.skipIf(!canMount).each(STORES)("%s", (_name, open) => {
  test("on a disk that is full say so, and nothing of moving data away", async () => {
    const disk = smallDisk("ext4", 4);
    try {
      disk.fill();
      const message = await messageOf(() => open(disk.path));
      expect(message).toContain("disk is full");
      expect(message).not.toMatch(/move|backup|chown/i);
    } finally {
      disk.unmount();
    }
  });

  test("on a disk that may only be read say so, and nothing of moving data away", async () => {
    const disk = smallDisk("ext4", 4);
    try {
      await open(disk.path);
      disk.readOnly(true);
      const message = await messageOf(() => open(disk.path));
      expect(message).toContain("may not write there");
      expect(message).not.toMatch(/move|backup|in use/i);
    } finally {
      disk.unmount();
    }
  });
});

test("damaged stores say what to restore or move away", async () => {
  for (const [name, file, advice] of [
    ["sessions", "sessions/index.sqlite", /damaged.*Restore the folder from a backup, or move it away/],
    ["statistics", "statistics.sqlite", /damaged.*Move the file away/],
  ] as const) {
    mkdirSync(path.join(folder, "sessions"), { recursive: true });
    writeFileSync(path.join(folder, file), "no database ".repeat(1000));
    const [, open] = STORES.find(([of]) => of === name) as (typeof STORES)[number];
    expect(await messageOf(() => open(folder))).toMatch(advice);
  }
});

describe("a lock", () => {
  test("that another server has", async () => {
    using lock = new FolderLock(folder);
    expect(lock).toBeDefined();
    const message = `${folder} is in use by another server. Stop that one, or set another DATA_DIR.`;
    expect(await messageOf(() => new FolderLock(folder))).toBe(message);
    expect(lockElsewhere()).toBe(message);
    // Asking has not given it up.
    expect(lockElsewhere()).toBe(message);
  });

  test("whose file is no lock", async () => {
    writeFileSync(path.join(folder, "lock"), "no lock ".repeat(1000));
    expect(await messageOf(() => new FolderLock(folder))).toMatch(/damaged.*delete it while no server runs/);
  });

  test.skipIf(!isRoot)("that this user may not take", () => {
    writeFileSync(path.join(folder, "lock"), "");
    chmodSync(folder, 0o755);
    chmodSync(path.join(folder, "lock"), 0o644);
    const message = lockElsewhere({ uid: 65534 });
    expect(message).toMatch(/user 65534, as which this server runs, may not write there\. .*chown/);
    expect(message).not.toMatch(/in use|move/);
  });

  test.skipIf(!hasCompiler)("on a file system without locks", () => {
    // NFS without its lock service answers ENOLCK; other file systems EOPNOTSUPP.
    const source = path.join(folder, "nolocks.c");
    writeFileSync(
      source,
      `#define _GNU_SOURCE
      #include <dlfcn.h>
      #include <errno.h>
      #include <fcntl.h>
      #include <stdarg.h>
      static int locked(const char *name, int fd, int command, void *argument) {
        if (command == F_SETLK || command == F_SETLKW) { errno = ERROR; return -1; }
        return ((int (*)(int, int, ...))dlsym(RTLD_NEXT, name))(fd, command, argument);
      }
      #define WRAP(name) int name(int fd, int command, ...) { va_list rest; va_start(rest, command); \\
        void *argument = va_arg(rest, void *); va_end(rest); return locked(#name, fd, command, argument); }
      WRAP(fcntl) WRAP(fcntl64)`,
    );
    for (const error of ["ENOLCK", "EOPNOTSUPP"]) {
      const library = path.join(folder, `${error}.so`);
      execFileSync("gcc", ["-shared", "-fPIC", `-DERROR=${error}`, "-o", library, source, "-ldl"]);
      const message = lockElsewhere({ env: { LD_PRELOAD: library } });
      expect(message).toContain("has no working file locks");
      expect(message).not.toMatch(/in use|move/);
    }
  });
});

describe.skipIf(!hasRedis)("a second server on one DATA_DIR", () => {
  test("does not start without its security log, also where Redis has all else", { timeout: 120_000 }, async () => {
    const redis = await startRedis();
    const settings = { DATA_DIR: folder, REDIS_URL: redis.url, LOG_DIR: path.join(folder, "logs") };
    const first = await startTestServer(settings);
    try {
      expect(await messageOf(() => startTestServer(settings))).toBe(
        `${path.join(folder, "logs")} is in use by another server. Stop that one, or set another LOG_DIR.`,
      );
      expect((await first.get("/ready")).status).toBe(200);
    } finally {
      await first.stop(0);
      await redis.stop();
    }
  });
});
