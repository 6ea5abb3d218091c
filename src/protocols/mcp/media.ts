/** Images and sounds, which models are shown beside the text: as base64 in it they would be read as text, and understood by none. */
import type { ContentBlock } from "@modelcontextprotocol/sdk/types.js";

const MAX_MEDIA = 16;
/** Of one text. */
const MAX_URLS = 1000;
/** Of all of one result, base64. */
const MAX_MEDIA_CHARACTERS = 8 * 1024 * 1024;
const IMAGES: ReadonlySet<string> = new Set(["image/png", "image/jpeg", "image/webp", "image/gif"]);
const SOUND = /^audio\/[\w.+-]{1,64}$/;
/** As `mimetypes` of Python has it. */
const WAVE: ReadonlySet<string> = new Set(["audio/x-wav", "audio/vnd.wave", "audio/wave"]);
/** 1: white space. */
const SPACE = Uint8Array.from({ length: 256 }, (_, byte) =>
  Number([0x20, 0x09, 0x0a, 0x0b, 0x0c, 0x0d].includes(byte)),
);
const DATA_URL = /data:([a-z]{1,32}\/[\w.+-]{1,64})((?:;[\w.=-]{1,64}){0,8});base64,([A-Za-z0-9+/]*={0,2})/gi;
/** Elements that are nothing without what they show. */
const FRAMES = /<\/?(?:audio|video|source|img)\b[^<>]*>/gi;

export function isMedium(mimeType: string): boolean {
  return IMAGES.has(mimeType) || SOUND.test(mimeType);
}

/** Without white space; undefined: user code has made it, and it is no base64 at all. */
export function base64Of(text: string): string | undefined {
  const data = withoutSpace(text);
  return data.length % 4 === 0 && /^[A-Za-z0-9+/]*={0,2}$/.test(data) ? data : undefined;
}

/** A pattern takes ten times as long where user code has put a space after each character. */
function withoutSpace(text: string): string {
  if (!/\s/.test(text)) return text;
  const bytes = Buffer.from(text);
  let length = 0;
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at] as number;
    bytes[length] = byte;
    length += 1 - (SPACE[byte] as number);
  }
  return bytes.toString("utf8", 0, length);
}

/** @returns null: it is the last of `media`; else what is said in its place. */
export function addMedium(media: ContentBlock[], mimeType: string, data: string): string | null {
  const held = media.reduce((sum, block) => sum + ("data" in block ? block.data.length : 0), 0);
  if (media.length >= MAX_MEDIA || held + data.length > MAX_MEDIA_CHARACTERS)
    return `(one more ${mimeType}, which is too much for one result)`;
  const isImage = IMAGES.has(mimeType);
  media.push({ type: isImage ? "image" : "audio", data, mimeType: WAVE.has(mimeType) ? "audio/wav" : mimeType });
  return null;
}

/** HTML or Markdown without what it has as `data:` URLs: images and sounds become media, and of others (a video) their size is told. */
export function withMediaBeside(text: string, media: ContentBlock[]): string {
  let hasMoved = false;
  let hasOthers = false;
  const replaced = withUrls(text, (type, data) => {
    const mimeType = type.toLowerCase();
    const said =
      isMedium(mimeType) && base64Of(data) !== undefined ? addMedium(media, mimeType, data) : sizeOf(type, data);
    if (said === null) hasMoved = true;
    else hasOthers = true;
    return said ?? "(see below)";
  });
  return hasMoved && !hasOthers && replaced.replace(FRAMES, "").trim() === "" ? "" : replaced;
}

/** Text of what is shown as a medium already. */
export function withoutMedia(text: string): string {
  return withUrls(text, sizeOf);
}

/** @param said what stands in the place of a `data:` URL. Of the first {@link MAX_URLS}: no model is shown the rest. */
function withUrls(text: string, said: (type: string, data: string) => string): string {
  let replaced = "";
  let from = 0;
  for (const { index, 0: url, 1: type = "", 3: data = "" } of text.matchAll(DATA_URL).take(MAX_URLS)) {
    replaced += text.slice(from, index) + said(type, data);
    from = index + url.length;
  }
  return replaced + text.slice(from);
}

function sizeOf(mimeType: string, data: string): string {
  return `(${mimeType}, ${Buffer.byteLength(data, "base64")} bytes)`;
}
