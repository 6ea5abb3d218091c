import { ROOT } from "./api.js";
import { element } from "./elements.js";

const IMAGES = ["image/png", "image/jpeg"];
/** What a page without their renderers shows as it was written, the first of them. */
const SOURCES = ["text/markdown", "text/latex", "application/json"];
const ROW_REM = 2.1;
const MAX_FRAME_REM = 28;
const STYLE_OR_HANDLER = /\s(?:style|on[a-z]+)\s*=\s*(?:"[^"]*"|'[^']*'|[^\s>]+)/gi;

/**
 * Shows a MIME bundle: an image where there is one, else HTML, else the source of Markdown, Latex or JSON, else text.
 *
 * What is in it was chosen by the code that ran. An SVG is an image, in which a browser runs nothing; HTML gets a frame of
 * its own with an opaque origin and no scripts, forms, popups or navigation, which inherits the page's
 * Content-Security-Policy.
 *
 * @param {Readonly<Record<string, any>>} bundle text by type; JSON as it is
 * @returns {HTMLElement}
 */
export function richOutput(bundle) {
  const text = bundle["text/plain"] ?? "";
  for (const type of IMAGES) {
    const data = bundle[type];
    if (data !== undefined) return figure(`data:${type};base64,${data.replace(/[^A-Za-z0-9+/=]/g, "")}`, text);
  }
  const svg = bundle["image/svg+xml"];
  if (svg !== undefined) return figure(`data:image/svg+xml,${encodeURIComponent(svg)}`, text);
  const html = bundle["text/html"];
  if (html !== undefined) return htmlFrame(html);
  const source = SOURCES.map((type) => bundle[type]).find((data) => data !== undefined);
  if (source !== undefined) {
    return element("pre", { class: "stream" }, typeof source === "string" ? source : JSON.stringify(source, null, 2));
  }
  return element("pre", { class: "stream" }, text || JSON.stringify(bundle, null, 2));
}

/**
 * @param {string} source
 * @param {string} description
 */
function figure(source, description) {
  return element(
    "figure",
    { class: "figure" },
    element("img", { src: source, alt: description === "" ? "Figure" : `Figure: ${description}` }),
  );
}

/** @param {string} html */
function htmlFrame(html) {
  const frame = element("iframe", { class: "frame", sandbox: "", title: "HTML output", loading: "eager" });
  frame.srcdoc =
    '<!doctype html><meta charset="utf-8"><meta name="color-scheme" content="light dark">' +
    `<link rel="stylesheet" href="${ROOT}/assets/frame.css">${withoutStyles(html)}`;
  // Nobody outside can measure a document of an opaque origin; most of what is displayed are tables.
  const rows = html.match(/<(?:tr|p|li|div|h[1-6]|br)\b/gi)?.length ?? 1;
  frame.style.height = `${Math.min(MAX_FRAME_REM, (rows + 1) * ROW_REM)}rem`;
  return frame;
}

/**
 * Takes off what the policy would refuse anyway, and report in the console each time: pandas sends a style element with
 * every table. This is tidiness; the frame and the policy are what protects.
 *
 * @param {string} html
 */
function withoutStyles(html) {
  return html
    .replace(/<(style|script)\b[^<>]*>[\s\S]*?(?:<\/\1\s*>|$)/gi, "")
    .replace(/<[a-z][^<>]*>/gi, (tag) => tag.replace(STYLE_OR_HANDLER, ""));
}
