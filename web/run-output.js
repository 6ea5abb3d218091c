import { element } from "./elements.js";
import { richOutput } from "./rich-output.js";

/** More than this makes a page slow to scroll; the whole of it is in the API's reply. */
const MAX_SHOWN_CHARACTERS = 200_000;
const PENDING = "form.pending";

/** What one execution says, in the order in which it says it. */
export class RunOutput {
  #area;
  /** @type {{ stream: "stdout" | "stderr", text: string }[]} */
  #waiting = [];
  #received = { stdout: 0, stderr: 0 };
  #shownCharacters = 0;
  #frame = 0;
  /** @type {HTMLElement | undefined} */
  #last;
  /** @type {Map<string, HTMLElement[]>} what can be updated, by its name */
  #named = new Map();
  #clearsNext = false;

  /** @param {HTMLElement} area emptied */
  constructor(area) {
    this.#area = area;
    area.replaceChildren();
  }

  /**
   * @param {"stdout" | "stderr"} stream
   * @param {string} text
   */
  write(stream, text) {
    this.#clearIfDue();
    this.#received[stream] += text.length;
    this.#waiting.push({ stream, text });
    // A program may print faster than a page can be drawn.
    this.#frame ||= requestAnimationFrame(() => this.flush());
  }

  /**
   * @param {Readonly<Record<string, any>>} bundle
   * @param {string | null} [name]
   * @param {boolean} [isUpdate] it takes the place of what has this name
   */
  display(bundle, name, isUpdate = false) {
    this.#clearIfDue();
    this.flush();
    const known = typeof name === "string" ? this.#named.get(name) : undefined;
    if (isUpdate && known) {
      const shown = known.map((before) => {
        const after = richOutput(bundle);
        if (this.#last === before) this.#last = after;
        before.replaceWith(after);
        return after;
      });
      this.#named.set(/** @type {string} */ (name), shown);
      return;
    }
    const node = richOutput(bundle);
    this.#append(node);
    if (typeof name === "string") this.#named.set(name, [...(known ?? []), node]);
  }

  /** @param {boolean} wait until something else comes */
  clear(wait) {
    this.#clearsNext = true;
    if (!wait) this.#clearIfDue();
  }

  #clearIfDue() {
    if (!this.#clearsNext) return;
    this.#clearsNext = false;
    this.flush();
    this.#area.replaceChildren();
    this.#last = undefined;
    this.#shownCharacters = 0;
    // Their names are known still: an update does not bring back what was cleared.
    for (const name of this.#named.keys()) this.#named.set(name, []);
  }

  /**
   * A form that the code waits for.
   *
   * @param {HTMLFormElement} form
   */
  ask(form) {
    this.flush();
    this.#append(form);
    const field = form.querySelector("input, textarea");
    if (field instanceof HTMLElement) field.focus();
  }

  /**
   * @param {any} result an `ExecResult`
   * @param {(line: number) => void} goToLine
   */
  finish(result, goToLine) {
    for (const stream of /** @type {const} */ (["stdout", "stderr"])) {
      const rest = String(result[stream] ?? "").slice(this.#received[stream]);
      if (rest !== "") this.write(stream, rest);
    }
    this.flush();
    this.close();
    if (result.truncated) this.note("The output was cut: it is longer than the server keeps.");
    if (!result.success) this.#append(errorCard(result, goToLine));
    else if (isRich(result.display)) this.#append(richOutput(result.display));
    else if (result.result !== null) this.#append(resultCard(result.result, result.display?.["text/plain"]));
    else if (this.#last === undefined) this.note("No output.");
  }

  /** Takes back the forms that have no answer: the code does not wait any more. */
  close() {
    this.flush();
    for (const form of this.#area.querySelectorAll(PENDING)) form.remove();
  }

  /** Whether a form waits for its answer. */
  get isAsking() {
    return this.#area.querySelector(PENDING) !== null;
  }

  /** @param {string} text */
  note(text) {
    this.flush();
    this.#append(element("p", { class: "note" }, text));
  }

  flush() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { stream, text } of waiting) {
      if (this.#shownCharacters >= MAX_SHOWN_CHARACTERS) return;
      const room = MAX_SHOWN_CHARACTERS - this.#shownCharacters;
      this.#shownCharacters += text.length;
      this.#print(stream, text.slice(0, room));
      if (this.#shownCharacters >= MAX_SHOWN_CHARACTERS) {
        this.#append(element("p", { class: "note" }, "More was printed than is shown here."));
      }
    }
    this.#area.scrollTop = this.#area.scrollHeight;
  }

  /**
   * @param {"stdout" | "stderr"} stream
   * @param {string} text
   */
  #print(stream, text) {
    if (!this.#last?.classList.contains(stream)) {
      this.#append(element("pre", { class: `stream ${stream}` }));
    }
    const last = this.#last?.lastChild;
    if (last instanceof Text) last.appendData(text);
    else this.#last?.append(text);
  }

  /** @param {HTMLElement} node */
  #append(node) {
    this.#last = node;
    this.#area.append(node);
    this.#area.scrollTop = this.#area.scrollHeight;
  }
}

/**
 * Whether a bundle has more than a text: a picture, HTML. What is data alone is shown as the result's.
 *
 * @param {Readonly<Record<string, any>> | null | undefined} bundle
 */
function isRich(bundle) {
  return Object.keys(bundle ?? {}).some((type) =>
    /^image\/(?:png|jpeg|svg\+xml)$|^text\/(?:html|markdown|latex)$/.test(type),
  );
}

/**
 * @param {unknown} value as JSON
 * @param {string | undefined} repr as Python writes it
 */
function resultCard(value, repr) {
  const text = repr ?? (typeof value === "string" ? value : JSON.stringify(value, null, 2));
  const shown =
    text.length > MAX_SHOWN_CHARACTERS
      ? `${text.slice(0, MAX_SHOWN_CHARACTERS)}\n… cut; the API sends all of it`
      : text;
  return element(
    "section",
    { class: "result", "aria-label": "Result" },
    element("h3", {}, "Result"),
    element("pre", { class: "stream" }, shown),
  );
}

/**
 * @param {any} result
 * @param {(line: number) => void} goToLine
 */
function errorCard({ error, errorInfo }, goToLine) {
  const card = element(
    "section",
    { class: "failure", "aria-label": "Error" },
    element("h3", {}, errorInfo?.type ?? "Error"),
    element("p", {}, errorInfo?.message || error || "The execution failed."),
  );
  const line = errorInfo?.line;
  if (typeof line === "number") {
    const button = element("button", { type: "button", class: "button small" }, `Go to line ${line}`);
    button.addEventListener("click", () => goToLine(line));
    card.append(button);
  }
  return card;
}
