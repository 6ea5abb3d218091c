const INDENT = "    ";

/**
 * Gives a textarea the manners of a code editor: line numbers, Tab and Shift+Tab indent, Enter keeps the indentation,
 * Ctrl+Enter (⌘+Enter) runs. Escape gives the next Tab back to the browser, so that nobody is trapped.
 *
 * @param {HTMLTextAreaElement} textarea
 * @param {HTMLElement} gutter holds the line numbers
 * @param {() => void} run
 */
export function editCode(textarea, gutter, run) {
  let tabLeaves = false;
  const number = () => {
    const lines = textarea.value.split("\n").length;
    gutter.textContent = Array.from({ length: lines }, (_, i) => i + 1).join("\n");
    gutter.scrollTop = textarea.scrollTop;
  };
  textarea.addEventListener("input", number);
  textarea.addEventListener("scroll", () => {
    gutter.scrollTop = textarea.scrollTop;
  });
  textarea.addEventListener("blur", () => {
    tabLeaves = false;
  });
  textarea.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      run();
    } else if (event.key === "Escape") {
      tabLeaves = true;
    } else if (event.key === "Tab" && !tabLeaves && !event.ctrlKey && !event.altKey && !event.metaKey) {
      event.preventDefault();
      if (event.shiftKey) changeLines(textarea, (line) => line.replace(/^ {1,4}/, ""));
      else if (selectsLines(textarea)) changeLines(textarea, (line) => (line === "" ? line : INDENT + line));
      else insert(textarea, INDENT);
    } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      insert(textarea, `\n${indentAfter(textarea)}`);
    } else if (event.key !== "Shift") {
      tabLeaves = false;
    }
  });
  number();
}

/**
 * Puts other code into the editor; Undo brings back what was there.
 *
 * @param {HTMLTextAreaElement} textarea
 * @param {string} code
 */
export function replaceCode(textarea, code) {
  textarea.focus();
  textarea.select();
  insert(textarea, code);
  textarea.setSelectionRange(0, 0);
  textarea.scrollTop = 0;
}

/**
 * Moves to a line and selects it.
 *
 * @param {HTMLTextAreaElement} textarea
 * @param {number} line from 1
 */
export function selectLine(textarea, line) {
  const lines = textarea.value.split("\n");
  const start = lines.slice(0, line - 1).reduce((sum, text) => sum + text.length + 1, 0);
  textarea.focus();
  textarea.setSelectionRange(start, start + (lines[line - 1]?.length ?? 0));
  const lineHeight = Number.parseFloat(getComputedStyle(textarea).lineHeight);
  textarea.scrollTop = Math.max(0, (line - 4) * lineHeight);
}

/**
 * @param {HTMLTextAreaElement} textarea
 * @param {string} text
 */
function insert(textarea, text) {
  // The only way that keeps the browser's undo. Where it is gone, undo is what is lost.
  if (document.execCommand(text === "" ? "delete" : "insertText", false, text)) return;
  textarea.setRangeText(text, textarea.selectionStart, textarea.selectionEnd, "end");
  textarea.dispatchEvent(new Event("input"));
}

/** @param {HTMLTextAreaElement} textarea */
function selectsLines({ value, selectionStart, selectionEnd }) {
  return value.slice(selectionStart, selectionEnd).includes("\n");
}

/** @param {HTMLTextAreaElement} textarea */
function indentAfter({ value, selectionStart }) {
  const line = value.slice(value.lastIndexOf("\n", selectionStart - 1) + 1, selectionStart);
  const indent = /^[ \t]*/.exec(line)?.[0] ?? "";
  return /:\s*(?:#.*)?$/.test(line) ? indent + INDENT : indent;
}

/**
 * @param {HTMLTextAreaElement} textarea
 * @param {(line: string) => string} change
 */
function changeLines(textarea, change) {
  const { value, selectionStart, selectionEnd } = textarea;
  const start = value.lastIndexOf("\n", selectionStart - 1) + 1;
  const lineEnd = value.indexOf("\n", selectionEnd);
  const end = lineEnd < 0 ? value.length : lineEnd;
  const before = value.slice(start, end);
  const after = before.split("\n").map(change).join("\n");
  if (after === before) return;
  textarea.setSelectionRange(start, end);
  insert(textarea, after);
  if (before.includes("\n")) textarea.setSelectionRange(start, start + after.length);
  else {
    const caret = Math.max(start, selectionStart + after.length - before.length);
    textarea.setSelectionRange(caret, caret);
  }
}
