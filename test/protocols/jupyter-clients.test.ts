/** Clients that are no npm packages: exactly the requests that their sources send, in their order, and what they read of the replies. */
import { randomUUID } from "node:crypto";
import http from "node:http";
import { text as textOf } from "node:stream/consumers";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type JupyterMessage, JupyterSocket } from "../support/jupyter.ts";
import { startTestServer, type TestServer } from "../support/server.ts";

const KEY = "a-key-of-the-jupyter-client-tests";
let server: TestServer;
beforeAll(async () => {
  server = await startTestServer({ API_KEYS: `alice:${KEY}` });
});
afterAll(async () => await server.stop(0));

/** Without a body and without types, as Python's clients send it; a `Host` of the caller's. */
async function ask(method: string, path: string, headers: Record<string, string> = {}, body?: object) {
  const request = http.request(new URL(path, server.url), { method, headers });
  request.end(body === undefined ? undefined : JSON.stringify(body));
  const response = await new Promise<http.IncomingMessage>((resolve, reject) => {
    request.on("response", resolve).on("error", reject);
  });
  return { status: response.statusCode, headers: response.headers, text: await textOf(response) };
}

/** The messages about one request, until the kernel is idle. */
async function about(socket: JupyterSocket, id: string): Promise<JupyterMessage[]> {
  await socket.done(id);
  return socket.messages.filter(({ parent_header: parent }) => parent.msg_id === id);
}

test("Open WebUI, backend/open_webui/utils/code_interpreter.py", async () => {
  const run = async (code: string) => {
    const made = await ask("POST", `/api/kernels?token=${KEY}`);
    expect(made.status).toBe(201);
    const { id } = JSON.parse(made.text);
    const socket = await JupyterSocket.open(server.url, `/api/kernels/${id}/channels?token=${KEY}`);
    const header = {
      msg_id: "m",
      msg_type: "execute_request",
      username: "user",
      session: "s",
      date: "",
      version: "5.3",
    };
    const flags = { silent: false, store_history: true, user_expressions: {}, allow_stdin: false, stop_on_error: true };
    const content = { code, ...flags };
    socket.socket.send(JSON.stringify({ header, parent_header: {}, metadata: {}, content, channel: "shell" }));
    const outputs = { stdout: "", stderr: "", result: [] as string[] };
    for (const { msg_type: type, content } of await about(socket, "m")) {
      if (type === "stream") outputs[content.name as "stdout" | "stderr"] += content.text;
      else if (type === "execute_result" || type === "display_data") {
        const { "image/png": png, "text/plain": plain } = content.data;
        outputs.result.push(png === undefined ? plain : `data:image/png;base64,${png}`);
      } else if (type === "error") outputs.stderr += content.traceback.join("\n");
    }
    socket.close();
    expect((await ask("DELETE", `/api/kernels/${id}?token=${KEY}`)).status).toBe(204);
    return outputs;
  };
  expect(await run("import sys\nprint('out')\nprint('err', file=sys.stderr)\n6 * 7")).toEqual({
    stdout: "out\n",
    stderr: "err\n",
    result: ["42"],
  });
  const png = "from IPython.display import Image, display\ndisplay(Image(data=b'\\x89PNG\\r\\n\\x1a\\n'))";
  expect((await run(png)).result).toEqual(["data:image/png;base64,iVBORw0KGgo="]);
  expect((await run("1 / 0")).stderr).toMatch(/^Traceback.*ZeroDivisionError: division by zero$/s);
  // Each conversation's code has a kernel of its own.
  expect((await run("out")).stderr).toContain("NameError");
  expect((await ask("POST", "/api/kernels?token=another-key-0123456789")).status).toBe(401);
  // A password alone: it asks for a page with a cookie first.
  expect((await ask("GET", "/jupyter/login")).headers["set-cookie"]?.[0]).toMatch(/^_xsrf=/);
  expect((await ask("POST", "/jupyter/login")).status).toBe(401);
});

test("AutoGen and AG2, autogen/coding/jupyter/jupyter_client.py", async () => {
  const authorization = { authorization: `token ${KEY}` };
  const specs = await ask("GET", "/api/kernelspecs", authorization);
  expect(JSON.parse(specs.text).kernelspecs).toHaveProperty("python3");
  const json = { ...authorization, "content-type": "application/json" };
  const made = await ask("POST", "/api/kernels", json, { name: "python3" });
  const { id } = JSON.parse(made.text);
  const socket = await JupyterSocket.open(server.url, `/api/kernels/${id}/channels`, { headers: authorization });
  const send = (type: string, content: object) => {
    const header = {
      username: "autogen",
      version: "5.0",
      session: "s",
      msg_id: randomUUID(),
      msg_type: type,
      date: "2026-01-02T03:04:05.678901",
    };
    socket.socket.send(
      JSON.stringify({ header, parent_header: {}, channel: "shell", content, metadata: {}, buffers: {} }),
    );
    return header.msg_id;
  };
  const ready = await about(socket, send("kernel_info_request", {}));
  expect(ready.map(({ msg_type: type }) => type)).toContain("kernel_info_reply");
  const run = async (code: string) => {
    const flags = { silent: false, store_history: true, user_expressions: {}, allow_stdin: false, stop_on_error: true };
    const output: string[] = [];
    for (const { msg_type: type, content } of await about(socket, send("execute_request", { code, ...flags }))) {
      if (type === "execute_result" || type === "display_data") output.push(content.data["text/plain"]);
      else if (type === "stream") output.push(content.text);
      else if (type === "error") return `ERROR: ${content.ename}: ${content.evalue}`;
    }
    return output.join("\n");
  };
  expect(await run("x = 20\nprint('hi')\nx + 1")).toBe("hi\n\n21");
  expect(await run("x + 2")).toBe("22");
  expect(await run("1 / 0")).toBe("ERROR: ZeroDivisionError: division by zero");
  expect((await ask("POST", `/api/kernels/${id}/restart`, authorization)).status).toBe(200);
  expect(await run("x")).toBe("ERROR: NameError: name 'x' is not defined");
  expect((await ask("DELETE", `/api/kernels/${id}`, authorization)).status).toBe(204);
});

test("smolagents, remote_executors.py: what its executors of Jupyter kernels send", async () => {
  expect((await ask("GET", `/api/kernelspecs?token=${KEY}`)).status).toBe(200);
  const made = await ask("POST", `/api/kernels?token=${KEY}`);
  expect(made.status).toBe(201);
  const { id } = JSON.parse(made.text);
  /** A connection for each piece of code. */
  const run = async (code: string) => {
    const socket = await JupyterSocket.open(server.url, `/api/kernels/${id}/channels?token=${KEY}`);
    const header = {
      msg_id: randomUUID(),
      username: "anonymous",
      session: randomUUID(),
      msg_type: "execute_request",
      version: "5.0",
    };
    const content = { code, silent: false, store_history: true, user_expressions: {}, allow_stdin: false };
    socket.socket.send(JSON.stringify({ header, parent_header: {}, metadata: {}, content }));
    const all = await about(socket, header.msg_id);
    socket.close();
    const of = (type: string) => all.filter(({ msg_type }) => msg_type === type).map((message) => message.content);
    return {
      logs: of("stream")
        .map(({ text }) => text)
        .join(""),
      result: of("execute_result")[0]?.data["text/plain"],
      error: of("error")[0],
    };
  };
  expect(await run("locals().update({'sent': 41})")).toMatchObject({ error: undefined });
  expect(await run("print('step')\nsent + 1")).toMatchObject({ logs: "step\n", result: "42" });
  const final =
    "class FinalAnswerException(BaseException):\n  def __init__(self, value): self.value = value\nraise FinalAnswerException('safe:[1, 2]')";
  // The answer is read from the value.
  expect((await run(final)).error).toMatchObject({ ename: "FinalAnswerException", evalue: "safe:[1, 2]" });
  expect((await run("sent / 0")).error.traceback.join("\n")).toContain("ZeroDivisionError");
  expect((await run("!pip install no-such-package-of-smolagents")).logs).toContain("no-such-package-of-smolagents");
  expect((await run("sent")).result).toBe("41");
});

test("LiteLLM, litellm/llms/e2b/sandbox/transformation.py", async () => {
  const headers = { "X-API-Key": KEY, "Content-Type": "application/json" };
  const body = { templateID: "code-interpreter-v1", timeout: 300, secure: true, allow_internet_access: true };
  const made = await ask("POST", "/sandboxes", { ...headers, host: "api.python.example" }, body);
  expect(made.status).toBe(201);
  const { sandboxID: id, domain, envdAccessToken } = JSON.parse(made.text);
  expect(domain).toBe("python.example");
  const execution = { "Content-Type": "application/json", "X-Access-Token": envdAccessToken };
  const run = async (code: string) => {
    const host = `49999-${id}.${domain}`;
    const { text } = await ask("POST", "/execute", { ...execution, host }, { code, context_id: null, env_vars: null });
    const lines = text.split("\n").filter((line) => line.trim() !== "");
    return lines.map((line) => JSON.parse(line));
  };
  const lines = await run("print('hi')\n6 * 7");
  expect(lines.filter(({ type }) => type === "stdout").map(({ text }) => text)).toEqual(["hi\n"]);
  expect(lines.find(({ type }) => type === "result")).toMatchObject({ text: "42", is_main_result: true });
  expect(lines.find(({ type }) => type === "number_of_executions")).toMatchObject({ execution_count: 1 });
  expect((await run("1 / 0")).find(({ type }) => type === "error")).toMatchObject({ name: "ZeroDivisionError" });
  expect((await ask("DELETE", `/sandboxes/${id}`, { "X-API-Key": KEY })).status).toBe(204);
  expect((await ask("DELETE", `/sandboxes/${id}`, { "X-API-Key": KEY })).status).toBe(404);
});
