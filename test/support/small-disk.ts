import { execFileSync } from "node:child_process";
import { closeSync, mkdtempSync, openSync, rmSync, statfsSync, writeSync } from "node:fs";
import os from "node:os";
import path from "node:path";

export type FileSystem = "tmpfs" | "ext4";

export interface SmallDisk {
  readonly path: string;
  /** Takes every byte that is left. */
  fill(): void;
  /** Gives back what `fill` took. */
  unfill(): void;
  readOnly(isReadOnly: boolean): void;
  unmount(): void;
}

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
  const folder = mkdtempSync(path.join(os.tmpdir(), "small-disk-"));
  const image = `${folder}.img`;
  const run = (command: string, ...parameters: string[]) => execFileSync(command, parameters, { stdio: "pipe" });
  try {
    if (fileSystem === "tmpfs") {
      run("mount", "-t", "tmpfs", "-o", `size=${mib}m`, "tmpfs", folder);
    } else {
      run("truncate", "-s", `${mib}M`, image);
      run("mkfs.ext4", "-q", "-O", "^has_journal", "-m", "0", image);
      run("mount", "-o", "loop", image, folder);
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
    readOnly: (isReadOnly) => run("mount", "-o", isReadOnly ? "remount,ro" : "remount,rw", folder),
    unmount() {
      run("umount", "-l", folder);
      rmSync(folder, { recursive: true, force: true });
      rmSync(image, { force: true });
    },
  };
}
