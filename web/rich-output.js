import { ROOT } from "./api.js";
import { element } from "./elements.js";

const IMAGES = ["image/png", "image/jpeg"];
/** What a page without their renderers shows as it was written, the first of them. */
const SOURCES = ["text/markdown", "text/latex", "application/json"];
/** A table's row in `frame.css`, and the body's margins. */
const ROW_REM = 2;
const MARGIN_REM = 1.75;
const MAX_FRAME_REM = 28;
const HANDLER = /\son[a-z]+\s*=\s*(?:"[^"]*"|'[^']*'|[^\s>]+)/gi;
/** Styles may be in the HTML; what is loaded has to be in it, too: nothing in a frame reaches a network, this server's neither. */
const FRAME_POLICY =
  `default-src 'none'; style-src 'unsafe-inline' ${ROOT}/assets/frame.css; ` + "img-src data:; media-src data:";

/**
 * Shows a MIME bundle: an image where there is one, else HTML, else the source of Markdown, Latex or JSON, else text.
 *
 * What is in it was chosen by the code that ran. An SVG is an image, in which a browser runs nothing; HTML gets a frame of
 * its own with an opaque origin and no scripts, forms, popups or navigation, under the page's Content-Security-Policy and a
 * narrower one of its own.
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
  const document = withoutActive(html);
  frame.srcdoc =
    `<!doctype html><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="${FRAME_POLICY}">` +
    '<meta name="color-scheme" content="light dark">' +
    `<link rel="stylesheet" href="${ROOT}/assets/frame.css">${document.head.innerHTML}${document.body.outerHTML}`;
  // Nothing outside can measure a document of an opaque origin; most of what is displayed are tables.
  const rows =
    document.querySelectorAll("tr").length ||
    document.querySelectorAll("p, li, div, h1, h2, h3, h4, h5, h6, br").length;
  frame.style.height = `${Math.min(MAX_FRAME_REM, Math.max(rows, 1) * ROW_REM + MARGIN_REM)}rem`;
  return frame;
}

/**
 * Takes off what the frame refuses to run or load anyway, and the browser would report each time or look up beforehand. This
 * is tidiness; the frame and the policy are what protects.
 *
 * @param {string} html
 * @returns {Document} inert: it is in no window, so nothing in it runs or loads
 */
function withoutActive(html) {
  // Handlers first: a parser reports them, as the page's policy refuses them, too.
  const plain = html.replace(/<[a-z][^<>]*>/gi, (tag) => tag.replace(HANDLER, ""));
  const document = new DOMParser().parseFromString(plain, "text/html");
  for (const node of document.querySelectorAll("script, link, meta, base, noscript")) node.remove();
  return document;
}
