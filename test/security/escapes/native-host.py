"""The machine's Python with nothing around it: what attacks do where there are files, sockets and processes.

Reads attacks as lines of JSON `{code, context}` and prints a line `{"text": what it said}` for each. May end at any of them.
"""

import ast
import asyncio
import contextlib
import inspect
import io
import json
import subprocess
import sys
import types

print('{"ready": true}', flush=True)
# A process that it is somebody's to end.
victim = subprocess.Popen(["sleep", "3600"])
for line in sys.stdin:
    attack = json.loads(line)
    said = io.StringIO()
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    vars(main).update(attack["context"], pid=victim.pid, display=lambda value: print(value))
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = compile(attack["code"], "<attack>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, vars(main))
            if inspect.iscoroutine(result):
                asyncio.run(result)
        except BaseException as error:
            print(type(error).__name__, error)
    print(json.dumps({"text": said.getvalue()}, separators=(",", ":")), flush=True)
