import { buildImage } from "../sandbox/build-image.ts";
import type { SandboxOptions } from "../sandbox/sandbox.ts";
import { SandboxDiedError } from "../shared/errors.ts";
import { ENDS_INTERPRETER } from "../wire/import-rules.ts";
import type { GuestEnvironment, GuestOptions } from "../wire/messages.ts";

const BUILD_MEMORY_MB = 1024;
const BUILD_TIMEOUT_MS = 300_000;
/** Each leaves out what the one before found to be unfit. */
const MAX_ATTEMPTS = 5;

/** For processes that serve no request: they are not discarded for their size, and need no quick rewind. */
export const UNBOUNDED = {
  maxHeapBytes: Number.MAX_SAFE_INTEGER,
  mapMemory: false,
  hashBaseline: false,
} satisfies Partial<GuestOptions>;

/** A sandbox for work of the server's own, with memory enough for it. */
export function compilerOptions(
  host: Omit<SandboxOptions, "guest">,
  start: Pick<BuildStart, "stdlibPath"> & { readonly baseImagePath: string },
): SandboxOptions {
  return {
    ...host,
    guest: {
      ...start,
      environment: null,
      preload: [],
      ...UNBOUNDED,
    },
    memoryMb: Math.max(host.memoryMb, BUILD_MEMORY_MB),
    maxCpuTimeMs: 0,
  };
}

/** What an image is built from. */
export type BuildStart = Pick<GuestOptions, "baseImagePath" | "stdlibPath" | "preload">;

/** Builds an image, and again without what turns out to have no place in one. */
export async function buildWithoutUnfit(
  start: BuildStart,
  environment: GuestEnvironment | null,
  host: Omit<SandboxOptions, "guest">,
  maxBuildMs: number,
): Promise<Awaited<ReturnType<typeof buildImage>>> {
  const deadline = performance.now() + maxBuildMs;
  let unfit: Record<string, string> = {};
  const isFit = (name: string) => !(name in unfit);
  const build = async (imports: readonly string[]) =>
    await buildImage({
      guest: {
        ...start,
        environment: environment && { ...environment, imports, libraries: environment.libraries.filter(isFit) },
        ...UNBOUNDED,
      },
      ...host,
      // Not less because sandboxes have less: modules that found no memory would be missing from the image for good.
      memoryMb: Math.max(host.memoryMb, BUILD_MEMORY_MB),
      startTimeoutMs: Math.max(1, Math.min(BUILD_TIMEOUT_MS, deadline - performance.now())),
    });
  for (let attempt = 1; ; attempt++) {
    const imports = environment?.imports.filter(isFit) ?? [];
    const built = await build(imports).catch((error) => {
      if (error instanceof SandboxDiedError && attempt < MAX_ATTEMPTS && performance.now() < deadline) return error;
      throw error;
    });
    if (built instanceof SandboxDiedError) {
      const deadly = await firstDeadly(imports, build);
      if (deadly === null) throw built;
      unfit = { ...unfit, [deadly]: ENDS_INTERPRETER };
      continue;
    }
    if (Object.keys(built.unfit).length === 0) return { ...built, unfit };
    if (attempt === MAX_ATTEMPTS) throw new SandboxDiedError(`No image can be made: ${JSON.stringify(built.unfit)}`);
    unfit = { ...unfit, ...built.unfit };
  }
}

/** @returns the first module whose import a build does not survive; null: none survives even without imports. */
async function firstDeadly(
  imports: readonly string[],
  build: (imports: readonly string[]) => Promise<unknown>,
): Promise<string | null> {
  const survives = async (count: number) =>
    await build(imports.slice(0, count)).then(
      () => true,
      (error) => {
        if (error instanceof SandboxDiedError) return false;
        throw error;
      },
    );
  if (!(await survives(0))) return null;
  let surviving = 0;
  let dying = imports.length;
  while (dying - surviving > 1) {
    const middle = (surviving + dying) >> 1;
    if (await survives(middle)) surviving = middle;
    else dying = middle;
  }
  return imports[dying - 1] ?? null;
}
