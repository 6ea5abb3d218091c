/** How long Pyodide takes to start without a memory image. Prints ms of `loadPyodide()` alone, and ends. */
import { loadPyodide } from "pyodide";

const startedAt = performance.now();
await loadPyodide();
console.log(performance.now() - startedAt);
process.exit(0);
