import { execFileSync, spawnSync } from "node:child_process";
import { closeSync, openSync, rmSync, statfsSync, writeFileSync, writeSync } from "node:fs";
import path from "node:path";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";

export type FileSystem = "tmpfs" | "ext4";

export interface SmallDisk {
  readonly path: string;
  /** Takes every byte that is left. */
  fill(): void;
  /** Gives back what `fill` took. */
  unfill(): void;
  /** Only while nothing is open for writing. */
  readOnly(isReadOnly: boolean): void;
  /** What the kernel does about a broken disk: nothing can be written any more, also to what is open. ext4 only. */
  break(): void;
  /** What an operator does about it, with nothing open any more. */
  repair(): void;
  unmount(): void;
}

const OPTIONS = ["-o", "loop,errors=remount-ro"];

/** Whether this process may mount file systems; tests that need it say that they are skipped. */
export const canMount = (() => {
  try {
    smallDisk("ext4", 4).unmount();
    return true;
  } catch {
    return false;
  }
})();

/** A real file system of a few MiB. It needs root. */
export function smallDisk(fileSystem: FileSystem, mib: number): SmallDisk {
  const folder = temporaryFolder("small-disk");
  const image = `${folder}.img`;
  const run = (command: string, ...parameters: string[]) => execFileSync(command, parameters, { stdio: "pipe" });
  try {
    if (fileSystem === "tmpfs") {
      run("mount", "-t", "tmpfs", "-o", `size=${mib}m`, "tmpfs", folder);
    } else {
      run("truncate", "-s", `${mib}M`, image);
      run("mkfs.ext4", "-q", "-O", "^has_journal", "-m", "0", image);
      run("mount", ...OPTIONS, image, folder);
    }
  } catch (error) {
    rmSync(folder, { recursive: true, force: true });
    rmSync(image, { force: true });
    throw error;
  }
  const filler = path.join(folder, "filler");
  return {
    path: folder,
    fill() {
      const fd = openSync(filler, "a");
      try {
        // Down to the last byte: a block may be had where 64 KiB are not.
        for (let step = 64 * 1024; step >= 1; step = Math.floor(step / 8)) {
          try {
            for (;;) writeSync(fd, Buffer.alloc(step, "x"));
          } catch {}
        }
      } finally {
        closeSync(fd);
      }
      if (statfsSync(folder).bavail > 0) throw new Error("the disk is not full");
    },
    unfill: () => rmSync(filler, { force: true }),
    break() {
      const device = execFileSync("findmnt", ["-n", "-o", "SOURCE", folder], { encoding: "utf8" }).trim();
      writeFileSync(`/sys/fs/ext4/${path.basename(device)}/trigger_fs_error`, "1");
    },
    repair() {
      run("umount", folder);
      // It says by 1 that it has repaired something.
      spawnSync("e2fsck", ["-fy", image]);
      run("mount", ...OPTIONS, image, folder);
    },
    readOnly: (isReadOnly) => run("mount", "-o", isReadOnly ? "remount,ro" : "remount,rw", folder),
    unmount() {
      run("umount", "-l", folder);
      rmSync(folder, { recursive: true, force: true });
      rmSync(image, { force: true });
    },
  };
}
