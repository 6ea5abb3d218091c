"""Runs modules of the sandbox's runner in an ordinary Python, for libraries that this machine has for no other."""

import json
import sys

sys.path.insert(0, sys.argv[1])
from sandbox_runner import convert, device, display  # noqa: E402


def conversions(expressions):
    import numpy as np
    import pandas as pd

    scope = {"np": np, "pd": pd}
    return [convert.to_json_data(eval(expression, scope)) for expression in expressions]


def figures(code):
    sent = []
    device.tell = lambda operation, argument: sent.append([operation, {k: v[:12] for k, v in argument.items()}])
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    error = None
    try:
        exec(code, {"plt": pyplot})
        display.flush_figures()
    except Exception as raised:
        error = type(raised).__name__
    return {"sent": sent, "open": pyplot.get_fignums(), "error": error}


request = json.load(sys.stdin)
print(json.dumps({"conversions": conversions, "figures": figures}[request["call"]](request["argument"])))
