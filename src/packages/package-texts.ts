import { TaskThread } from "../shared/task-thread.ts";
import { PackageError } from "./package-error.ts";
import type { PackageText, ReadText } from "./package-texts-worker.ts";
import { type CoreMetadata, parseCoreMetadata } from "./pep/metadata.ts";
import type { PythonPlatform } from "./pep/platform.ts";
import { type IndexOffers, type IndexPage, indexOffers } from "./sources/index-offers.ts";
import { NotSimpleApi } from "./sources/simple-api.ts";

/** Larger texts are read in a thread of their own: the event loop of this one goes on. */
const MAX_INLINE_BYTES = 64 * 1024;
const MAX_INLINE_METADATA_CHARACTERS = 16 * 1024;
/** Texts of packages are their authors' and an index's: what takes longer is not read to its end. */
const TASK_TIMEOUT_MS = 30_000;
const IDLE_MS = 30_000;

/** As {@link indexOffers}. */
export async function readIndexOffers(page: IndexPage, key: string, python: PythonPlatform): Promise<IndexOffers> {
  if (page.bytes.length <= MAX_INLINE_BYTES) return indexOffers(page, key, python);
  return (await readInThread({ kind: "index", page, key, python })) as IndexOffers;
}

/** As {@link parseCoreMetadata}. */
export async function readMetadataText(text: string, label: string): Promise<CoreMetadata> {
  if (text.length <= MAX_INLINE_METADATA_CHARACTERS) return parseCoreMetadata(text, label);
  return (await readInThread({ kind: "metadata", text, label })) as CoreMetadata;
}

const thread = new TaskThread<PackageText, ReadText>({
  program: new URL("package-texts-worker.ts", import.meta.url),
  lost: () =>
    new PackageError("package_damaged", "The description of a package takes too long to read, or too much memory."),
  timeoutMs: TASK_TIMEOUT_MS,
  idleMs: IDLE_MS,
});

async function readInThread(text: PackageText): Promise<IndexOffers | CoreMetadata> {
  const read = await thread.run(text);
  if ("refusal" in read) throw refused(read);
  return read.value;
}

function refused({ refusal, code, message }: Extract<ReadText, { refusal: string }>): Error {
  if (refusal === "not-simple-api") return new NotSimpleApi(message);
  return code === null ? new Error(message) : new PackageError(code, message);
}
