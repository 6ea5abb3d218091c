import { execFileSync } from "node:child_process";
import { mkdirSync, rmdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { readHostLimits } from "./host-limits.ts";
import { temporaryFolder } from "./testing/temporary-folder.ts";

function fakeRoot(files: Readonly<Record<string, string>>): string {
  const root = temporaryFolder("cgroups");
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(path.dirname(path.join(root, name)), { recursive: true });
    writeFileSync(path.join(root, name), `${content}\n`);
  }
  return root;
}

const MIB = 2 ** 20;
const V2 = {
  "proc/self/mountinfo":
    "22 1 0:20 / /proc rw - proc proc rw\n31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate",
};
const V1 = {
  "proc/self/cgroup": "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n0::/docker/abc",
  "proc/self/mountinfo": [
    "32 31 0:29 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro,nosuid master:9 - cgroup cgroup rw,cpu,cpuacct",
    "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory",
    "36 31 0:33 / /sys/fs/cgroup/systemd ro - cgroup cgroup rw,xattr,name=systemd",
  ].join("\n"),
};

describe("version 2", () => {
  test("the least on the path counts, for each by itself", () => {
    const root = fakeRoot({
      ...V2,
      "proc/self/cgroup": "0::/kubepods/pod/container",
      "sys/fs/cgroup/cgroup.controllers": "cpu memory",
      "sys/fs/cgroup/kubepods/cpu.max": "max 100000",
      "sys/fs/cgroup/kubepods/memory.max": String(8192 * MIB),
      "sys/fs/cgroup/kubepods/pod/cpu.max": "150000 100000",
      "sys/fs/cgroup/kubepods/pod/memory.max": "max",
      "sys/fs/cgroup/kubepods/pod/container/cpu.max": "400000 100000",
      "sys/fs/cgroup/kubepods/pod/container/memory.max": String(1024 * MIB),
      "sys/fs/cgroup/other/memory.max": String(MIB),
    });
    expect(readHostLimits(root, 8)).toEqual({
      cpus: { count: 1.5, from: "the CPU limit of /sys/fs/cgroup/kubepods/pod: 1.5" },
      memory: { bytes: 1024 * MIB, from: "the memory limit of /sys/fs/cgroup/kubepods/pod/container: 1024 MiB" },
    });
  });

  test("in a namespace of its own a container's group is the root", () => {
    const root = fakeRoot({
      ...V2,
      "proc/self/cgroup": "0::/",
      "sys/fs/cgroup/cpu.max": "50000 100000",
      "sys/fs/cgroup/memory.max": String(512 * MIB),
    });
    expect(readHostLimits(root, 4)).toMatchObject({ cpus: { count: 0.5 }, memory: { bytes: 512 * MIB } });
  });

  test("a limit above what the machine has, and none, change nothing", () => {
    const root = fakeRoot({ ...V2, "proc/self/cgroup": "0::/a", "sys/fs/cgroup/a/cpu.max": "900000 100000" });
    expect(readHostLimits(root, 4)).toEqual({ cpus: { count: 4, from: "4 processors" }, memory: null });
    expect(readHostLimits(fakeRoot({}), 1)).toEqual({ cpus: { count: 1, from: "1 processor" }, memory: null });
  });

  test("what is not as the kernel writes it is passed over", () => {
    const root = fakeRoot({
      ...V2,
      "proc/self/cgroup": "0::/../outside\nnonsense",
      "sys/fs/cgroup/cpu.max": "many some",
      "sys/fs/cgroup/memory.max": "-5",
    });
    expect(readHostLimits(root, 2)).toMatchObject({ cpus: { count: 2 }, memory: null });
  });
});

describe("version 1", () => {
  test("where the group is mounted as if it were the root", () => {
    const root = fakeRoot({
      ...V1,
      "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "250000",
      "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
      "sys/fs/cgroup/memory/memory.limit_in_bytes": String(2048 * MIB),
    });
    expect(readHostLimits(root, 8)).toMatchObject({ cpus: { count: 2.5 }, memory: { bytes: 2048 * MIB } });
  });

  test("what it writes for none is none, and a group above that cannot be seen counts", () => {
    const root = fakeRoot({
      ...V1,
      "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
      "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
      "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
      "sys/fs/cgroup/memory/memory.stat": `cache 0\nhierarchical_memory_limit ${768 * MIB}`,
    });
    expect(readHostLimits(root, 8)).toMatchObject({ cpus: { count: 8 }, memory: { bytes: 768 * MIB } });
  });
});

describe("real control groups", () => {
  const folders = ["cpu", "memory"].map((name) => `/sys/fs/cgroup/${name}/pyodide-express-test-${process.pid}`);
  const [cpu = "", memory = ""] = folders;
  afterEach(() => {
    for (const folder of folders) {
      try {
        rmdirSync(folder);
      } catch {
        // It could not be made.
      }
    }
  });

  test("of version 1 or 2, where this machine lets one be made", ({ skip }) => {
    const inner = path.join(`/sys/fs/cgroup/pyodide-express-test-${process.pid}`);
    let groups: string[];
    try {
      mkdirSync(cpu);
      mkdirSync(memory);
      writeFileSync(path.join(cpu, "cpu.cfs_quota_us"), "150000");
      writeFileSync(path.join(memory, "memory.limit_in_bytes"), String(1024 * MIB));
      groups = folders;
    } catch {
      try {
        mkdirSync(inner);
        folders.push(inner);
        writeFileSync(path.join(inner, "cpu.max"), "150000 100000");
        writeFileSync(path.join(inner, "memory.max"), String(1024 * MIB));
        groups = [inner];
      } catch (error) {
        return skip(`no control group with limits can be made here: ${(error as Error).message}`);
      }
    }
    const module = new URL("host-limits.ts", import.meta.url).href;
    const program = `import { readHostLimits } from ${JSON.stringify(module)}; console.log(JSON.stringify(readHostLimits("/", 8)))`;
    const enter = groups.map((group) => `echo $$ > ${group}/cgroup.procs`).join(" && ");
    const command = `${enter} && exec ${process.execPath} --input-type=module -e '${program}'`;
    const limits = JSON.parse(execFileSync("sh", ["-c", command], { encoding: "utf8" }));
    expect(limits).toMatchObject({ cpus: { count: 1.5 }, memory: { bytes: 1024 * MIB } });
  });
});
