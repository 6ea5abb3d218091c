import { ApiError, describe, get, jsonRequest, post, send } from "./api.js";
import { editCode, replaceCode, selectLine } from "./code-editor.js";
import { confirmed } from "./dialogs.js";
import { byId, element } from "./elements.js";
import { readEvents } from "./event-stream.js";
import { EXAMPLES } from "./examples.js";
import { counted, formatBytes, formatMs } from "./format.js";
import { callForm, inputForm } from "./pending-calls.js";
import { RunOutput } from "./run-output.js";

const DRAFT = "draft";
const TOOLS = "tools";
const RUNNING = "Running…";
const WAITING = "Waiting for your answer";

const code = byId("code", HTMLTextAreaElement);
const runButton = byId("run", HTMLButtonElement);
const stopButton = byId("stop", HTMLButtonElement);
const examples = byId("examples", HTMLSelectElement);
const fileList = byId("files", HTMLUListElement);
const toolsText = byId("tools", HTMLTextAreaElement);

/** @type {AbortController | undefined} */
let running;

async function run() {
  if (running) return;
  running = new AbortController();
  const output = new RunOutput(byId("output", HTMLElement));
  showStatus("run-status", RUNNING, "busy");
  setRunning(true);
  try {
    const request = { ...jsonRequest(requestBody()), signal: running.signal };
    let ended = false;
    let execution = "";
    /** @param {any} event */
    const ask = ({ type, id, ...call }) => {
      const results = `/api/executions/${execution}/results`;
      /** @param {object} answer */
      const answer = async (answer) => {
        showStatus("run-status", output.isAsking ? WAITING : RUNNING, "busy");
        try {
          return await post(results, { results: [{ id, ...answer }] });
        } catch (error) {
          if (running) showStatus("run-status", WAITING, "busy");
          throw error;
        }
      };
      showStatus("run-status", WAITING, "busy");
      output.ask(
        type === "input_request"
          ? inputForm(/** @type {any} */ (call), answer)
          : callForm(/** @type {any} */ (call), answer),
      );
    };
    for await (const event of readEvents(await send("/api/execute-stream", request))) {
      if (event.type === "stdout" || event.type === "stderr") output.write(event.type, event.content);
      else if (event.type === "output") output.display(event.data, event.displayId, event.update === true);
      else if (event.type === "clear_output") output.clear(event.wait);
      else if (event.type === "status") execution = event.execution ?? "";
      else if (event.type === "tool_call" || event.type === "input_request") ask(event);
      else if (event.type === "result") {
        ended = true;
        output.finish(event, (line) => selectLine(code, line));
        showOutcome(event);
      }
    }
    if (!ended) throw new ApiError(500, "The connection ended before the execution did.");
  } catch (error) {
    output.close();
    if (running.signal.aborted) showStatus("run-status", "Stopped", "bad");
    else showStatus("run-status", describe(error), "bad");
  } finally {
    running = undefined;
    setRunning(false);
    await showFiles();
  }
}

/**
 * What the page asks for. Code that may wait for it holds a sandbox meanwhile, so only code that asks for something may.
 *
 * @throws {ApiError} if what describes the tools is no list
 */
function requestBody() {
  const interactive = /\b(?:input|getpass)\b/.test(code.value);
  const text = toolsText.value.trim();
  if (text === "") return { code: code.value, ...(interactive && { interactive }) };
  try {
    return { code: code.value, interactive, tools: JSON.parse(text), toolTimeout: 600_000 };
  } catch {
    throw new ApiError(400, "The tools are no JSON.");
  }
}

/** @param {any} result */
function showOutcome({ success, error, errorInfo, executionTime }) {
  // Code that never ran has neither: the server was busy, for one.
  if (!errorInfo && !success) return showStatus("run-status", error, "bad");
  const time = formatMs(executionTime);
  if (success) return showStatus("run-status", `Finished in ${time}`, "good");
  const where = typeof errorInfo.line === "number" ? ` on line ${errorInfo.line}` : "";
  showStatus("run-status", `${errorInfo.type}${where}, after ${time}`, "bad");
}

/** @param {boolean} isRunning */
function setRunning(isRunning) {
  const hadFocus = document.activeElement === (isRunning ? runButton : stopButton);
  runButton.disabled = isRunning;
  stopButton.disabled = !isRunning;
  // A disabled button loses the focus, and a keyboard user their place.
  if (hadFocus) (isRunning ? stopButton : runButton).focus();
}

async function showFiles() {
  try {
    const { result } = await get("/api/pyodide-files");
    const files = /** @type {{ name: string, size: number }[]} */ (result.files);
    fileList.replaceChildren(
      ...(files.length > 0 ? files.map(fileItem) : [element("li", { class: "note" }, "No files yet.")]),
    );
  } catch (error) {
    showStatus("files-status", describe(error), "bad");
  }
}

/** @param {{ name: string, size: number }} file */
function fileItem({ name, size }) {
  const button = element("button", { type: "button", class: "button small", "aria-label": `Delete ${name}` }, "Delete");
  button.addEventListener("click", () =>
    attempt("files-status", `Deleting ${name}…`, async () => {
      await send(`/api/pyodide-files/${encodeURIComponent(name)}`, { method: "DELETE" });
      await showFiles();
      byId("upload", HTMLInputElement).focus();
      return `${name} deleted`;
    }),
  );
  const save = element("button", { type: "button", class: "button small", "aria-label": `Save ${name}` }, "Save");
  save.addEventListener("click", () =>
    attempt("files-status", `Fetching ${name}…`, async () => {
      saveAs(name, await (await send(`/api/pyodide-files/${encodeURIComponent(name)}`)).blob());
      return `${name} fetched`;
    }),
  );
  return element(
    "li",
    {},
    element("span", { class: "name", title: name }, name),
    element("span", { class: "size" }, formatBytes(size)),
    save,
    button,
  );
}

/**
 * A link would not send the API key.
 *
 * @param {string} name
 * @param {Blob} content
 */
function saveAs(name, content) {
  const url = URL.createObjectURL(content);
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/**
 * Does something and says how it went.
 *
 * @param {string} statusId
 * @param {string} doing
 * @param {() => Promise<string>} action what it resolves to is shown
 */
async function attempt(statusId, doing, action) {
  showStatus(statusId, doing, "busy");
  try {
    showStatus(statusId, await action(), "good");
  } catch (error) {
    showStatus(statusId, describe(error), "bad");
  }
}

/**
 * @param {string} id
 * @param {string} text
 * @param {"busy" | "good" | "bad"} state
 */
function showStatus(id, text, state) {
  const status = byId(id, HTMLElement);
  status.textContent = text;
  status.dataset.state = state;
}

/** @param {{ shape?: number[] | null, success?: boolean } | undefined} analysis */
function shapeOf(analysis) {
  const [rows, columns] = analysis?.success === true && Array.isArray(analysis.shape) ? analysis.shape : [];
  return rows === undefined || columns === undefined ? "" : `: ${counted(rows, "row")}, ${counted(columns, "column")}`;
}

byId("upload-form", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  const input = byId("upload", HTMLInputElement);
  const file = input.files?.[0];
  if (!file) return;
  attempt("files-status", `Uploading ${file.name}…`, async () => {
    const said = await upload(file);
    input.value = "";
    await showFiles();
    return said;
  });
});

/**
 * A table is looked into; what `/api/upload` does not take, `/api/files` does.
 *
 * @param {File} file
 */
async function upload(file) {
  if (!/\.csv$/i.test(file.name)) {
    await send(`/api/files/${encodeURIComponent(file.name)}`, { method: "PUT", body: file });
    return `${file.name} uploaded`;
  }
  const form = new FormData();
  form.append("csvFile", file);
  const reply = await (await send("/api/upload", { method: "POST", body: form })).json();
  return `${reply.file.pyodideFilename} uploaded${shapeOf(reply.analysis)}`;
}

byId("package-form", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  const input = byId("package", HTMLInputElement);
  const name = input.value.trim();
  attempt("package-status", `Installing ${name}…`, async () => {
    const reply = await post("/api/install-package", { package: name });
    if (!reply.success) throw new ApiError(200, reply.error);
    input.value = "";
    return `${name} installed`;
  });
});

byId("reset", HTMLButtonElement).addEventListener("click", async () => {
  const text = "The packages that were installed here are removed. Files stay.";
  if (!(await confirmed("Reset the environment?", text, "Reset"))) return;
  await attempt("reset-status", "Resetting…", async () => {
    const { message } = await post("/api/reset");
    await showFiles();
    return message;
  });
});

for (const name of Object.keys(EXAMPLES)) examples.append(element("option", { value: name }, name));
byId("examples-form", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  replaceCode(code, EXAMPLES[/** @type {keyof typeof EXAMPLES} */ (examples.value)]);
});
code.value = sessionStorage.getItem(DRAFT) ?? EXAMPLES.Hello;
code.addEventListener("input", () => sessionStorage.setItem(DRAFT, code.value));
toolsText.value = sessionStorage.getItem(TOOLS) ?? "";
toolsText.addEventListener("input", () => sessionStorage.setItem(TOOLS, toolsText.value));
editCode(code, byId("gutter", HTMLElement), run);
runButton.addEventListener("click", run);
stopButton.addEventListener("click", () => running?.abort());
// Not every browser lets a keyboard scroll what cannot have the focus.
byId("output", HTMLElement).tabIndex = 0;
await showFiles();
