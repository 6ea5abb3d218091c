/**
 * What a Python package index says of one project: JSON (PEP 691) or HTML (PEP 503), as the "simple repository API" has both
 * (https://packaging.python.org/en/latest/specifications/simple-repository-api/).
 */
import { Parser } from "htmlparser2";
import { z } from "zod";

const Sha256 = z.string().regex(/^[0-9a-f]{64}$/);
const Hashes = z.object({ sha256: Sha256.optional().catch(undefined) });
const MetadataFlag = z.union([z.boolean(), Hashes]).optional().catch(undefined);

/** Fields that are not used here are not looked at. */
const ProjectSchema = z.object({
  meta: z.object({ "api-version": z.string() }),
  name: z.string(),
  files: z.array(
    z.object({
      filename: z.string().max(255),
      url: z.string(),
      hashes: Hashes,
      "requires-python": z.string().nullish().catch(null),
      "core-metadata": MetadataFlag,
      "dist-info-metadata": MetadataFlag,
      yanked: z.union([z.boolean(), z.string()]).optional().catch(undefined),
    }),
  ),
});

/** One file of a project, by the names of PEP 691. `url` may be relative to the page. */
export type IndexFile = z.infer<typeof ProjectSchema>["files"][number];

/** Asks for JSON, and takes HTML of an index that has no JSON. */
export const SIMPLE_API_TYPES =
  "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";

/**
 * @param contentType without parameters, in lower case.
 * @throws {NotSimpleApi} whose message ends the sentence "the index answered with …".
 */
export function parseProject(bytes: Buffer, contentType: string): readonly IndexFile[] {
  const text = bytes.toString("utf8");
  const isHtml = contentType.endsWith("html") || (!contentType.endsWith("json") && /^\s*</.test(text));
  return isHtml ? parseHtml(text) : parseJson(text);
}

/** The answer is not a project's page. */
export class NotSimpleApi extends Error {
  override readonly name = "NotSimpleApi";
}

function parseJson(text: string): readonly IndexFile[] {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (cause) {
    throw new NotSimpleApi("something that is not JSON", { cause });
  }
  const parsed = ProjectSchema.safeParse(json);
  if (!parsed.success) throw new NotSimpleApi("JSON that is not the simple API's", { cause: parsed.error });
  checkVersion(parsed.data.meta["api-version"]);
  if (parsed.data.files.length > MAX_FILES) throw new NotSimpleApi(`more than ${MAX_FILES} files`);
  return parsed.data.files;
}

/** Elements inside one another; the parser's work grows with the square of it. */
const MAX_DEPTH = 200;
const MAX_FILES = 50_000;

/** A page of links, each to a file, with the file's hash as the link's fragment. */
function parseHtml(text: string): readonly IndexFile[] {
  const files: IndexFile[] = [];
  let base: string | undefined;
  let isIndex = false;
  let depth = 0;
  const parser = new Parser({
    onclosetag() {
      depth--;
    },
    onopentag(name, attributes) {
      if (++depth > MAX_DEPTH) throw new NotSimpleApi("a web page that is nested too deeply");
      if (name === "base") base ??= attributes.href;
      if (name === "meta" && attributes.name === "pypi:repository-version") {
        isIndex = true;
        checkVersion(attributes.content ?? "");
      }
      if (name !== "a" || attributes.href === undefined) return;
      const file = linkedFile(attributes.href, base, attributes);
      if (file === null) return;
      if (files.push(file) > MAX_FILES) throw new NotSimpleApi(`more than ${MAX_FILES} files`);
    },
  });
  parser.end(text);
  // A login page, or what a proxy has to say.
  if (files.length === 0 && !isIndex) throw new NotSimpleApi("a web page that lists no files of a package");
  return files;
}

/** @returns null for a link to something that is no file of a package. */
function linkedFile(
  href: string,
  base: string | undefined,
  attributes: Readonly<Record<string, string>>,
): IndexFile | null {
  const address = href.trim();
  const [path = "", fragment = ""] = address.split("#", 2);
  const filename = decoded(path.split("?", 1)[0]?.split("/").at(-1) ?? "");
  if (!/\.(whl|zip|tar\.gz|tar\.bz2|tgz|egg)$/i.test(filename) || filename.length > 255) return null;
  // The attribute's name in PEP 714, and before it.
  const offered = attributes["data-core-metadata"] ?? attributes["data-dist-info-metadata"];
  return {
    filename,
    url: base !== undefined && URL.canParse(path, base) ? new URL(path, base).href : path,
    hashes: { sha256: hashIn(fragment) },
    "requires-python": attributes["data-requires-python"] ?? null,
    "core-metadata": offered === undefined ? undefined : { sha256: hashIn(offered) },
    "dist-info-metadata": undefined,
    yanked: attributes["data-yanked"] === undefined ? undefined : attributes["data-yanked"] || true,
  };
}

/** @param text `sha256=<hex>`, alone or among other fields of a link's fragment. */
function hashIn(text: string): string | undefined {
  return /(?:^|&)sha256=([0-9a-fA-F]{64})(?:&|$)/.exec(text)?.[1]?.toLowerCase();
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function checkVersion(version: string): void {
  if (!version.startsWith("1.")) throw new NotSimpleApi("a version of the API that is not known");
}
