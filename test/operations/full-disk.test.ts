import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startTestServer, type TestServer } from "../support/server.ts";
import { canMount, type FileSystem, type SmallDisk, smallDisk } from "../support/small-disk.ts";

if (!canMount) console.warn("This process may not mount file systems: tests of full disks are skipped.");

const FULL = { status: 507, code: "storage_full" };

describe.skipIf(!canMount).each<[FileSystem, mib: number]>([
  ["tmpfs", 3],
  ["tmpfs", 64],
  ["ext4", 12],
])("on a full %s of %i MiB", (fileSystem, mib) => {
  let disk: SmallDisk;
  let server: TestServer;
  beforeAll(async () => {
    disk = smallDisk(fileSystem, mib);
    server = await startTestServer({
      DATA_DIR: disk.path,
      UPLOAD_DIR: `${disk.path}/uploads`,
      LOG_DIR: `${disk.path}/logs`,
    });
  });
  afterAll(async () => {
    await server?.stop(0);
    disk?.unmount();
  });

  const run = (code: string, more: object = {}) => server.post("/api/execute", { code, ...more });
  const outcome = ({ status, body }: { status: number; body: { code?: string } }) => ({ status, code: body.code });
  const create = async (): Promise<string> => (await server.post("/api/sessions", {})).body.session.id;
  const files = async (): Promise<string[]> =>
    (await server.get("/api/files")).body.files.map(({ name }: { name: string }) => name).sort();

  test("what cannot be written is refused, and what the code came to is in the reply", async () => {
    const id = await create();
    expect((await run("x = 1", { session: id })).status).toBe(200);
    await server.put("/api/files/kept.txt", "kept");
    disk.fill();
    try {
      const put = await server.put("/api/files/more.bin", "m".repeat(100_000));
      expect(outcome(put)).toEqual(FULL);
      expect(put.body.error).toContain("full");
      expect(outcome(await server.upload("table.csv", `a,b\n${"1,2\n".repeat(30_000)}`))).toEqual(FULL);
      const wrote = await run("print('ran'); open('big', 'w').write('b' * 100_000)");
      expect(outcome(wrote)).toEqual(FULL);
      expect(wrote.body).toMatchObject({ success: false, result: 100_000, stdout: "ran\n" });
      expect(wrote.body.errorInfo).toMatchObject({ type: "WorkspaceError" });
      const inSession = await run("import os; print('ran'); x = os.urandom(100_000); len(x)", { session: id });
      expect(outcome(inSession)).toEqual(FULL);
      expect(inSession.body).toMatchObject({ success: false, result: 100_000, stdout: "ran\n" });
      expect(inSession.body.session).toMatchObject({ id, restored: true });
      const stream = await server.post("/api/execute-stream", { code: "x = os.urandom(100_000); 5", session: id });
      expect(stream.body).not.toContain("Internal");
      expect((await run("1 + 1")).body).toMatchObject({ success: true, result: 2 });
    } finally {
      disk.unfill();
    }
    expect((await run("x", { session: id })).body.result).toBe(1);
    expect(await files()).toEqual(["kept.txt"]);
    expect((await server.delete(`/api/sessions/${id}`)).status).toBe(200);
    await server.post("/api/clear-all-files", {});
  });

  test("files are deleted with no byte free: by request, by code, and all at once", async () => {
    const small = mib < 10 ? 30 : 200;
    const paths = Array.from({ length: small }, (_, i) => `file-${i}.txt`);
    await run(`for i in range(${small}): open(f'file-{i}.txt', 'w').write('same')`);
    expect(await files()).toHaveLength(small);
    disk.fill();
    try {
      for (const path of paths.slice(0, 3)) {
        expect((await server.delete(`/api/files/${path}`)).status).toBe(200);
        disk.fill();
      }
      expect((await run("import os; [os.remove(f'file-{i}.txt') for i in range(3, 6)]; 'gone'")).body).toMatchObject({
        success: true,
        result: "gone",
      });
      disk.fill();
      expect(await files()).toHaveLength(small - 6);
      expect((await server.post("/api/clear-all-files", {})).status).toBe(200);
      expect(await files()).toEqual([]);
    } finally {
      disk.unfill();
    }
  });

  test("sessions, their checkpoints and their files are deleted with no byte free", async () => {
    const ids: string[] = [];
    for (let i = 0; i < 5; i++) {
      const id = await create();
      expect((await run(`x = ${i}; open('f', 'w').write('f')`, { session: id })).body.success).toBe(true);
      ids.push(id);
    }
    const [first, second, ...rest] = ids as [string, string, ...string[]];
    expect((await server.post(`/api/sessions/${first}/checkpoints`, { name: "one" })).status).toBe(201);
    disk.fill();
    try {
      for (const id of rest) {
        expect((await server.delete(`/api/sessions/${id}`)).status).toBe(200);
        disk.fill();
      }
      expect((await server.delete(`/api/sessions/${first}/files/f`)).status).toBe(200);
      disk.fill();
      expect((await server.post(`/api/sessions/${first}/checkpoints/one/restore`, {})).status).toBe(200);
      disk.fill();
      expect((await server.get("/api/sessions")).body.sessions).toHaveLength(2);
      expect((await server.delete(`/api/sessions/${first}`)).status).toBe(200);
    } finally {
      disk.unfill();
    }
    expect((await run("[x, open('f').read()]", { session: second })).body.result).toEqual([1, "f"]);
    expect((await server.delete(`/api/sessions/${second}`)).status).toBe(200);
  });

  test("a principal who has stored nothing sees that, and runs code", async () => {
    await server.post("/api/clear-all-files", {});
    disk.fill();
    try {
      expect(await files()).toEqual([]);
      expect((await server.post("/api/clear-all-files", {})).status).toBe(200);
      expect((await run("import os; os.listdir()")).body.result).toEqual([]);
    } finally {
      disk.unfill();
    }
  });

  test("a server that is started anew deletes as well", async () => {
    const id = await create();
    expect((await run("x = 1", { session: id })).body.success).toBe(true);
    await server.put("/api/files/file.txt", "text");
    disk.fill();
    await server.stop(0);
    disk.fill();
    server = await startTestServer({
      DATA_DIR: disk.path,
      UPLOAD_DIR: `${disk.path}/uploads`,
      LOG_DIR: `${disk.path}/logs`,
    });
    disk.fill();
    try {
      expect((await server.delete(`/api/sessions/${id}`)).status).toBe(200);
      expect((await server.delete("/api/files/file.txt")).status).toBe(200);
      expect(await files()).toEqual([]);
    } finally {
      disk.unfill();
    }
  });
});
