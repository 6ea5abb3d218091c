/**
 * Makes an element. Strings among the children become text, never markup.
 *
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, string | boolean | number>} [attributes] `true` sets an attribute without a value, `false` none
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false) made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children);
  return made;
}

/**
 * The element of the page with this id.
 *
 * @template {Element} T
 * @param {string} id
 * @param {new () => T} type what it has to be
 * @returns {T}
 */
export function byId(id, type) {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new Error(`no ${type.name} with the id ${id}`);
  return found;
}

/**
 * Text in which code stands between backticks: as many after it as before it, so that code may itself have others (CommonMark 6.1).
 *
 * @param {string} text
 * @returns {(Node | string)[]}
 */
export function prose(text) {
  /** @type {(Node | string)[]} */
  const parts = [];
  let end = 0;
  for (const { 0: span, index, groups } of text.matchAll(/(?<!`)(?<ticks>`+)(?!`)(?<code>.+?)(?<!`)\k<ticks>(?!`)/gs)) {
    const code = (groups?.code ?? "").replace(/^ (?=`)|(?<=`) $/g, "");
    parts.push(text.slice(end, index), element("code", {}, code));
    end = index + span.length;
  }
  return [...parts, text.slice(end)];
}
