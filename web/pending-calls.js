import { describe } from "./api.js";
import { element } from "./elements.js";

/**
 * A form that asks the person at the page for what `input()` waits for.
 *
 * @param {{ prompt: string, password: boolean }} request
 * @param {(answer: { result: unknown } | { error: { message: string } }) => Promise<unknown>} answer
 * @returns {HTMLFormElement} replaced by a note once it was answered
 */
export function inputForm({ prompt, password }, answer) {
  const input = element("input", {
    type: password ? "password" : "text",
    "aria-label": prompt.trim() || "Input",
    autocomplete: "off",
    autocapitalize: "off",
    spellcheck: "false",
  });
  const end = element("button", { type: "button", class: "button small" }, "End of input");
  const form = element(
    "form",
    { class: "pending", "aria-label": "The code asks for input" },
    element("span", { class: "prompt" }, prompt),
    input,
    element("button", { type: "submit", class: "button small primary" }, "Send"),
    end,
  );
  answerWith(form, answer, {
    submit: () => ({ result: input.value }),
    said: () => `${prompt}${password ? "•".repeat(input.value.length) : input.value}`,
  });
  end.addEventListener("click", () =>
    send(form, answer, { error: { message: "end of input" } }, `${prompt}(end of input)`),
  );
  return form;
}

/**
 * A form with a call of a tool, to be answered by hand.
 *
 * @param {{ name: string, input: unknown }} call
 * @param {(answer: { result: unknown } | { error: { message: string } }) => Promise<unknown>} answer
 * @returns {HTMLFormElement} replaced by a note once it was answered
 */
export function callForm({ name, input }, answer) {
  const text = element("textarea", { rows: 3, spellcheck: "false", "aria-label": `Answer of ${name}` }, "null");
  const fail = element("button", { type: "button", class: "button small" }, "Fail");
  const call = `${name}(${JSON.stringify(input)})`;
  const form = element(
    "form",
    { class: "pending", "aria-label": `Call of ${name}` },
    element("pre", { class: "stream" }, call),
    text,
    element("p", { class: "note" }, "The answer as JSON, or text that the tool fails with."),
    element(
      "div",
      { class: "actions" },
      fail,
      element("button", { type: "submit", class: "button small primary" }, "Answer"),
    ),
  );
  answerWith(form, answer, {
    submit: () => ({ result: JSON.parse(text.value) }),
    said: () => `${call} → ${text.value}`,
  });
  fail.addEventListener("click", () =>
    send(form, answer, { error: { message: text.value } }, `${call} ✗ ${text.value}`),
  );
  return form;
}

/**
 * @param {HTMLFormElement} form
 * @param {(answer: any) => Promise<unknown>} answer
 * @param {{ submit: () => object, said: () => string }} what
 */
function answerWith(form, answer, { submit, said }) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    try {
      send(form, answer, submit(), said());
    } catch {
      show(form, "This is no JSON.");
    }
  });
}

/**
 * @param {HTMLFormElement} form
 * @param {(answer: any) => Promise<unknown>} answer
 * @param {object} value
 * @param {string} said what stays of the form
 */
async function send(form, answer, value, said) {
  // At once: what the code makes of the answer may come before the server has said that it has it.
  const note = element("pre", { class: "stream answered" }, said);
  form.replaceWith(note);
  try {
    await answer(value);
  } catch (error) {
    note.replaceWith(form);
    show(form, describe(error));
  }
}

/**
 * @param {HTMLFormElement} form
 * @param {string} text
 */
function show(form, text) {
  const status = form.querySelector(".status") ?? form.appendChild(element("p", { class: "status", role: "status" }));
  status.textContent = text;
  status.setAttribute("data-state", "bad");
}
