/** A notebook that Debian's own `jupyter nbconvert --execute` runs by its own ipykernel, and unchanged by this server: the outputs are the same. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { temporaryFolder } from "../../src/shared/testing/temporary-folder.ts";
import { ROOT } from "../support/imports.ts";
import { isInstalled } from "../support/installed.ts";
import { hasJupyterServer } from "../support/jupyter-server.ts";
import { startTestServer, type TestServer } from "../support/server.ts";
import { CELLS, DIFFERENCES, type Output } from "./jupyter-notebook-cells.ts";

const has = hasJupyterServer && isInstalled("jupyter-nbconvert", "--version");
if (!has)
  console.warn(
    "There is no jupyter-nbconvert with python3-ipykernel on this machine: no notebook is executed by both.",
  );

interface Ran {
  readonly execution_count: number | null;
  readonly outputs: readonly (Output & { readonly text?: string })[];
}

/** What `docs/clients.md` tells users to add. */
const BY_GATEWAY = "--ExecutePreprocessor.kernel_manager_class=jupyter_server.gateway.managers.GatewayKernelManager";

const notebook = {
  cells: CELLS.map(({ code, tags = [] }, index) => ({
    cell_type: "code",
    id: `cell-${index}`,
    metadata: { tags },
    source: code,
    outputs: [],
    execution_count: null,
  })),
  metadata: { kernelspec: { name: "python3", display_name: "Python 3", language: "python" } },
  nbformat: 4,
  nbformat_minor: 5,
};

describe.skipIf(!has)("jupyter nbconvert --execute", () => {
  let server: TestServer;
  const folder = temporaryFolder("jupyter-nbconvert");

  beforeAll(async () => {
    server = await startTestServer();
    writeFileSync(path.join(folder, "notebook.ipynb"), JSON.stringify(notebook));
  });
  afterAll(async () => await server?.stop(0));

  /** @returns the cells as they are in the file that it writes. */
  async function execute(name: string, parameters: readonly string[], env: Record<string, string>): Promise<Ran[]> {
    const child = spawn(
      "jupyter-nbconvert",
      ["--to", "notebook", "--execute", ...parameters, "notebook.ipynb", "--output", name],
      { cwd: folder, env: { ...process.env, ...env }, stdio: ["ignore", "ignore", "pipe"] },
    );
    let said = "";
    child.stderr.on("data", (data) => {
      said += data;
    });
    const [status] = await once(child, "close");
    if (status !== 0) throw new Error(said);
    return JSON.parse(readFileSync(path.join(folder, name), "utf8")).cells;
  }

  test("gives what ipykernel gives, but for what docs/clients.md says", { timeout: 240_000 }, async () => {
    const expected = await execute("ipykernel.ipynb", ["--ExecutePreprocessor.kernel_name=python3"], {});
    const actual = await execute("here.ipynb", [BY_GATEWAY], { JUPYTER_GATEWAY_URL: server.url });
    expect(CELLS.length).toBeGreaterThanOrEqual(30);
    for (const [index, { code, differs }] of CELLS.entries()) {
      const [theirs, ours] = [expected[index], actual[index]].map((ran) => ({
        code,
        count: ran?.execution_count,
        outputs: comparable(ran?.outputs ?? []),
      }));
      if (differs === undefined) expect(ours).toEqual(theirs);
      else {
        expect(ours).toEqual({ ...theirs, outputs: differs.here });
        // The list has no more than differs.
        expect(ours).not.toEqual(theirs);
      }
    }
    // As it was printed; ipykernel has stderr after all of stdout.
    expect(actual[1]?.outputs.map(({ text }) => [text].flat().join(""))).toEqual(["out\n", "err\n", "out again\n"]);
  });

  test("ends at an error, and says which, where the notebook does not expect it", { timeout: 120_000 }, async () => {
    const cells = [{ ...notebook.cells[0], source: "1 / 0" }];
    writeFileSync(path.join(folder, "notebook.ipynb"), JSON.stringify({ ...notebook, cells }));
    const failed = execute("failed.ipynb", [BY_GATEWAY], { JUPYTER_GATEWAY_URL: server.url });
    await expect(failed).rejects.toThrow("ZeroDivisionError: division by zero");
  });

  test("leaves no kernel", async () => {
    expect((await server.get("/api/kernels")).body).toEqual([]);
  });
});

test("docs/clients.md names each difference", () => {
  const page = readFileSync(path.join(ROOT, "docs/clients.md"), "utf8").replaceAll("\n", " ");
  for (const words of Object.values(DIFFERENCES)) expect(page).toContain(words);
  expect(page).toContain(BY_GATEWAY);
});

/** As both have it: of what is said below nothing is left. */
function comparable(outputs: readonly Output[]): readonly Output[] {
  const all: Record<string, unknown>[] = [];
  for (const output of outputs) {
    // Tracebacks have colours there, and IPython's way of showing frames.
    const { traceback: _, ...own }: Record<string, unknown> = {
      ...output,
      ...(output.text !== undefined && { text: textOf(output.text) }),
    };
    if (typeof own.data === "object") own.data = Object.fromEntries(Object.entries(own.data ?? {}).map(plain));
    if (typeof own.evalue === "string") own.evalue = withoutSource(own.evalue);
    // Two streams come as they like: each is whole.
    const run = all.slice(all.findLastIndex(({ output_type: type }) => type !== "stream") + 1);
    const same = run.find(
      ({ output_type: type, name }) => own.output_type === "stream" && type === "stream" && name === own.name,
    );
    if (same) same.text = `${same.text}${own.text}`;
    else all.push(own);
  }
  return all;
}

function plain([type, value]: [string, unknown]): readonly [string, unknown] {
  // IPython breaks what has over 80 characters into lines.
  return [
    type,
    type === "text/plain" ? textOf(value).replaceAll(/\n +/g, " ") : isLines(value) ? value.join("") : value,
  ];
}

/** Notebooks have texts as lists of lines. */
function textOf(value: unknown): string {
  return withoutSource(isLines(value) ? value.join("") : String(value));
}

function isLines(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((line) => typeof line === "string");
}

/** A cell's source is a file of its own there, and `<exec 5>` here. */
function withoutSource(text: string): string {
  return text.replaceAll(/\/\S*\/ipykernel_\d+\/\d+\.py|\b\d{6,}\.py|<exec \d+>/g, "<cell>");
}
