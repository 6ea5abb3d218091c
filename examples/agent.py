"""An agent: a model writes Python, the sandbox runs it, and the code calls tools that live here. Standard library only.

    MODEL_URL=https://…/v1/chat/completions MODEL_KEY=… python3 examples/agent.py "Which city is warmer, Oslo or Lisbon?"
"""

import json
import os
import re
import sys
import urllib.request

SERVER = os.environ.get("PYODIDE_EXPRESS_URL", "http://127.0.0.1:3000")
FUNCTIONS = {"temperature": lambda city: {"Oslo": 4.5, "Lisbon": 17}[city]}
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"name": "temperature", "description": "Degrees Celsius now.", "parameters": PARAMETERS, "returns": {"type": "number"}}]


def post(url, body, key):
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), headers)) as reply:
        return reply.read().decode()


def ask(path, body):
    return post(f"{SERVER}{path}", body, os.environ.get("PYODIDE_EXPRESS_KEY"))


def answer(call):
    try:
        return {"id": call["id"], "result": FUNCTIONS[call["name"]](**call["input"])}
    except Exception as error:
        return {"id": call["id"], "error": {"message": f"{type(error).__name__}: {error}"}}


def run(code):
    reply = json.loads(ask("/api/execute", {"code": code, "tools": TOOLS, "check": True}))
    while reply["status"] == "tool_call_required":
        results = [answer(call) for call in reply["toolCalls"]]
        reply = json.loads(ask(f"/api/executions/{reply['continuation']}", {"results": results}))
    return {name: reply[name] for name in ("status", "stdout", "result", "error")}


system = "Answer in one ```python block, or in plain text once you know. You can call:\n" + ask("/api/tools/stubs", {"tools": TOOLS})
messages = [{"role": "system", "content": system}, {"role": "user", "content": sys.argv[1]}]
for _ in range(10):
    reply = post(os.environ["MODEL_URL"], {"model": os.environ.get("MODEL", ""), "messages": messages}, os.environ.get("MODEL_KEY"))
    text = json.loads(reply)["choices"][0]["message"]["content"]
    code = re.search(r"```python\n(.*?)```", text, re.S)
    if code is None:
        print(text)
        break
    messages += [{"role": "assistant", "content": text}, {"role": "user", "content": json.dumps(run(code[1]))}]
