/**
 * How long Pyodide takes to be ready for a package without a memory image: `node bench/peers/plain-packages.ts numpy,numpy.random WHEEL…`. Prints ms
 * of `loadPyodide()`, loading the wheels and the imports, and ends.
 */
import { loadPyodide } from "pyodide";

const [modules = "", ...wheels] = process.argv.slice(2);
const startedAt = performance.now();
const pyodide = await loadPyodide();
await pyodide.loadPackage(wheels, { messageCallback: () => {}, checkIntegrity: false });
pyodide.runPython(`import ${modules}`);
console.log(performance.now() - startedAt);
process.exit(0);
