"""Runs modules of the sandbox's runner in an ordinary Python, for libraries that this machine has for no other."""

import json
import sys
import types
import warnings

sys.path.insert(0, sys.argv[1])
# They need Python 3.14, and nothing of them is run here.
for name in ("ending", "execution", "interactive_shell", "seeds", "sources"):
    sys.modules[f"sandbox_runner.{name}"] = types.ModuleType(name)
from sandbox_runner import convert, device, display, environment  # noqa: E402


def conversions(expressions):
    import numpy as np
    import pandas as pd

    scope = {"np": np, "pd": pd}
    values = [eval(expression, scope) for expression in expressions]
    # Nothing may reach user code's stderr, nor depend on how it treats warnings.
    warnings.simplefilter("error")
    return [convert.to_json_data(value) for value in values]


def cuts(expressions):
    """Of tables that are too large: whether that is said, how many columns there are, and rows in the longest and shortest."""
    import numpy as np
    import pandas as pd

    def measure(expression):
        data, truncated = convert.to_json_data(eval(expression, {"np": np, "pd": pd}))
        is_table = type(data) is dict and type(next(iter(data.values()))) is dict
        lengths = [len(column) for column in data.values()] if is_table else [len(data)]
        return {"truncated": truncated, "columns": len(data), "rows": [min(lengths), max(lengths)], "bytes": len(json.dumps(data))}

    return [measure(expression) for expression in expressions]


def analyses(argument):
    """The analysis of uploads, with pandas: `[script, file, …]`."""
    script, *files = argument
    results = []
    for file in files:
        sys.path.insert(0, "")
        scope = {"filename": file}
        exec(script, scope)
        results.append(scope["analyse"](file))
    return results


def figures(code):
    """Runs code on a matplotlib that was prepared as in an image."""
    from matplotlib import pyplot

    failure = environment.prepare_matplotlib()
    sent = []
    device.tell = lambda operation, argument: sent.append([operation, {k: v[:12] for k, v in argument["bundle"].items()}])
    error = None
    try:
        exec(compile(code, "<exec>", "exec"), {"plt": pyplot, "sent": sent})
    except BaseException as raised:
        error = type(raised).__name__
        display.flush_figures_after(raised)
    else:
        try:
            display.flush_figures()
        except Exception as raised:
            error = type(raised).__name__
    return {"sent": sent, "open": pyplot.get_fignums(), "error": error, "failure": failure}


request = json.load(sys.stdin)
print(json.dumps({"conversions": conversions, "cuts": cuts, "analyses": analyses, "figures": figures}[request["call"]](request["argument"])))
