/**
 * Reads an escape.
 *
 * @returns its character's code times 16, plus the length of the escape; 0: it is none.
 */
type ReadEscape = (text: string, at: number) => number;

/** How long an escape may be; `&#x000002f;` */
const MAX_ENTITY = 12;
const ENTITIES: ReadonlyMap<string, string> = new Map(
  Object.entries({ amp: "&", lt: "<", gt: ">", quot: '"', apos: "'" }),
);
const SHORT_ESCAPES: Readonly<Record<string, string>> = { b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" };

/** By the character that an escape begins with: URLs and forms, JSON and JavaScript, HTML and XML. */
const ESCAPES: readonly (readonly [mark: string, read: ReadEscape])[] = [
  ["%", (text, at) => hexEscape(text, at, 1, 2)],
  [
    "\\",
    (text, at) => {
      const next = text[at + 1] ?? "";
      if (next === "u") return hexEscape(text, at, 2, 4);
      if (next === "x") return hexEscape(text, at, 2, 2);
      const character = SHORT_ESCAPES[next] ?? (/^["'\\/]$/.test(next) ? next : "");
      return character === "" ? 0 : character.charCodeAt(0) * 16 + 2;
    },
  ],
  [
    "&",
    (text, at) => {
      const end = text.slice(at, at + MAX_ENTITY).indexOf(";");
      if (end < 0) return 0;
      const name = text.slice(at + 1, at + end);
      const [, hex, decimal] = /^#(?:x([0-9a-f]+)|(\d+))$/i.exec(name) ?? [];
      const code = hex ? Number.parseInt(hex, 16) : decimal ? Number(decimal) : ENTITIES.get(name)?.charCodeAt(0);
      return code === undefined || code > 0xff ? 0 : code * 16 + end + 1;
    },
  ],
];

/** A text as its reader has it, and where each of its characters was. */
export interface View {
  readonly text: string;
  /** By index in `text`, one more than it has characters; null: they are the same. */
  readonly starts: Uint32Array | null;
}

/**
 * Views of a text: as it is, and decoded as a part of a URL, of JSON and of HTML. Comparing what an encoder has written decoded finds it whichever
 * characters the encoder escapes, and in whichever case.
 */
export function* viewsOf(text: string): Generator<View> {
  yield { text, starts: null };
  for (const [mark, read] of ESCAPES) if (text.includes(mark)) yield decoded(text, mark.charCodeAt(0), read);
}

/**
 * What to look for in {@link viewsOf views}, so that a header's value is found as it is, with the spaces of forms, in UTF-8 and in base64.
 *
 * @param value whose characters are bytes, as in a header.
 */
export function spellingsOf(value: string): ReadonlySet<string> {
  const texts = new Set([value, Buffer.from(value, "utf8").toString("latin1")]);
  const spellings = new Set<string>();
  for (const text of texts) {
    spellings.add(text).add(text.replaceAll(" ", "+"));
    for (const form of inBase64(Buffer.from(text, "latin1"))) spellings.add(form);
  }
  return spellings;
}

/** How long a spelling may be as an encoder writes it: letters and digits as they are, others as six characters (`\u002f`, `&quot;`). */
export function longestSpelling(spelling: string): number {
  return spelling.length + 5 * (spelling.match(/[^A-Za-z0-9]/g)?.length ?? 0);
}

/**
 * Also in the middle of something, such as after `user:`. Characters at its ends that have bits of something else, too, are not in it: they
 * hold less than a byte of the value.
 */
function* inBase64(bytes: Buffer): Generator<string> {
  for (const encoding of ["base64", "base64url"] as const) {
    for (const before of [0, 1, 2]) {
      const text = Buffer.concat([Buffer.alloc(before), bytes]).toString(encoding);
      const start = Math.ceil((before * 8) / 6);
      // At the end of what is encoded, with and without padding; and before something.
      yield text.slice(start);
      yield text.replace(/={1,2}$/, "").slice(start);
      yield text.slice(start, Math.floor(((before + bytes.length) * 8) / 6));
    }
  }
}

function decoded(text: string, mark: number, read: ReadEscape): View {
  const codes = Buffer.allocUnsafe(text.length * 2);
  const starts = new Uint32Array(text.length + 1);
  let length = 0;
  for (let at = 0; at < text.length; ) {
    starts[length] = at;
    const code = text.charCodeAt(at);
    const found = code === mark ? read(text, at) : 0;
    codes.writeUInt16LE(found === 0 ? code : found >> 4, 2 * length++);
    at += found === 0 ? 1 : found & 15;
  }
  starts[length] = text.length;
  return { text: codes.toString("utf16le", 0, 2 * length), starts };
}

function hexEscape(text: string, at: number, before: number, digits: number): number {
  const hex = text.slice(at + before, at + before + digits);
  return hex.length === digits && /^[0-9a-f]+$/i.test(hex) ? Number.parseInt(hex, 16) * 16 + before + digits : 0;
}
