/** Before every key of ours, so that a Redis can serve others too. */
export const KEY_PREFIX = "pyodide-express:";
