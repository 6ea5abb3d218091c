# Compiles the sources of one package to bytecode (PEP 552). Runs in a sandbox that runs nothing else: compiling a source does not run it.
#
# `names`: the sources, below /lib/packages; `paths`, `folder`: where they will be, which is what the code says that it comes from.
# Writes one file: the sizes of the results as a line of JSON, null for a source that cannot be compiled, and then the results.
import json
import warnings
from importlib._bootstrap_external import _code_to_hash_pyc
from importlib.util import source_hash

warnings.simplefilter("ignore")
results = []
for name, path in zip(names, paths):
    with open(f"/lib/packages/{name}", "rb") as file:
        source = file.read()
    try:
        code = compile(source, folder + path, "exec", dont_inherit=True, optimize=0)
        results.append(bytes(_code_to_hash_pyc(code, source_hash(source), False)))
        del code
    except Exception:  # a template, another Python's syntax: left to be compiled, or not, when it is imported
        results.append(None)
with open("/home/pyodide/bytecode", "wb") as file:
    sizes = [None if result is None else len(result) for result in results]
    file.write(json.dumps(sizes).encode() + b"\n")
    file.writelines(result for result in results if result is not None)
None
