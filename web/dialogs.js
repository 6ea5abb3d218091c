import { element } from "./elements.js";

/**
 * Asks before something that cannot be undone.
 *
 * @param {string} title
 * @param {string} text what will happen
 * @param {string} action label of the button that agrees
 * @returns {Promise<boolean>}
 */
export async function confirmed(title, text, action) {
  const agree = element("button", { type: "submit", class: "button danger", value: "agree" }, action);
  const form = element(
    "form",
    { method: "dialog" },
    element("p", { id: "dialog-text" }, text),
    element("div", { class: "actions" }, cancelButton(), agree),
  );
  return (await answerOf(form, title)) === "agree";
}

/**
 * Asks for an API key.
 *
 * @param {string} reason why: the server's words
 * @returns {Promise<string | null>} null if the person would rather not
 */
export async function askForKey(reason) {
  const input = element("input", {
    type: "password",
    id: "dialog-key",
    autocomplete: "off",
    spellcheck: "false",
    required: true,
  });
  const form = element(
    "form",
    { method: "dialog" },
    element("p", { id: "dialog-text" }, `${reason}. The key stays in this tab until it is closed.`),
    element("label", { for: "dialog-key" }, "API key"),
    input,
    element(
      "div",
      { class: "actions" },
      cancelButton(),
      element("button", { type: "submit", class: "button primary", value: "agree" }, "Use key"),
    ),
  );
  return (await answerOf(form, "API key needed")) === "agree" ? input.value.trim() : null;
}

function cancelButton() {
  // Not a submit button: Enter in a field presses the first of those.
  const button = element("button", { type: "button", class: "button" }, "Cancel");
  button.addEventListener("click", () => button.closest("dialog")?.close());
  return button;
}

/**
 * @param {HTMLFormElement} form
 * @param {string} title
 * @returns {Promise<string>} value of the button that agreed; empty after Cancel and Escape
 */
function answerOf(form, title) {
  const dialog = element(
    "dialog",
    { "aria-labelledby": "dialog-title", "aria-describedby": "dialog-text" },
    element("h2", { id: "dialog-title" }, title),
    form,
  );
  document.body.append(dialog);
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue);
    });
    // The first field or button has the focus; where there is no field that is Cancel, the one that does no harm.
    dialog.showModal();
    form.querySelector("input")?.focus();
  });
}
