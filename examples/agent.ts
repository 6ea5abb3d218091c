/**
 * An agent: a model writes Python, the sandbox runs it, and the code calls tools that live here.
 *
 *     MODEL_URL=https://…/v1/chat/completions MODEL_KEY=… node examples/agent.ts "Which city is warmer, Oslo or Lisbon?"
 */
const {
  PYODIDE_EXPRESS_URL = "http://127.0.0.1:3000",
  PYODIDE_EXPRESS_KEY,
  MODEL_URL = "",
  MODEL_KEY,
  MODEL,
} = process.env;
const temperatures: Record<string, number> = { Oslo: 4.5, Lisbon: 17 };
const functions: Record<string, (input: { city: string }) => unknown> = {
  temperature: ({ city }) => {
    if (!(city in temperatures)) throw new Error(`there is no city ${city}`);
    return temperatures[city];
  },
};
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ name: "temperature", description: "Degrees Celsius now.", parameters, returns: { type: "number" } }];

async function post(url: string, body: object, key?: string): Promise<string> {
  const headers = { "content-type": "application/json", ...(key && { authorization: `Bearer ${key}` }) };
  const response = await fetch(url, { method: "POST", headers, body: JSON.stringify(body) });
  if (!response.ok) throw new Error(`${url} answered ${response.status}: ${await response.text()}`);
  return await response.text();
}

const ask = (path: string, body: object) => post(PYODIDE_EXPRESS_URL + path, body, PYODIDE_EXPRESS_KEY);

function answer({ id, name, input }: { id: string; name: string; input: { city: string } }): object {
  try {
    return { id, result: functions[name]?.(input) };
  } catch (error) {
    return { id, error: { message: String(error) } };
  }
}

async function run(code: string): Promise<object> {
  let reply = JSON.parse(await ask("/api/execute", { code, tools, check: true }));
  while (reply.status === "tool_call_required") {
    const results = reply.toolCalls.map(answer);
    reply = JSON.parse(await ask(`/api/executions/${reply.continuation}`, { results }));
  }
  const { status, stdout, result, error } = reply;
  return { status, stdout, result, error };
}

const stubs = await ask("/api/tools/stubs", { tools });
const system = `Answer in one \`\`\`python block, or in plain text once you know. You can call:\n${stubs}`;
const messages = [
  { role: "system", content: system },
  { role: "user", content: process.argv[2] ?? "" },
];
for (let turn = 0; turn < 10; turn++) {
  const text: string = JSON.parse(await post(MODEL_URL, { model: MODEL ?? "", messages }, MODEL_KEY)).choices[0].message
    .content;
  const code = /```python\n(.*?)```/s.exec(text)?.[1];
  if (code === undefined) {
    console.log(text);
    break;
  }
  messages.push({ role: "assistant", content: text }, { role: "user", content: JSON.stringify(await run(code)) });
}
