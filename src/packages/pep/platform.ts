/**
 * The Python that wheels are chosen for, as Pyodide's lock file describes it. The server never runs it: everything here is
 * text comparison.
 */
export interface PythonPlatform {
  /** Full version: `3.14.2`. */
  readonly pythonVersion: string;
  /** Of Pyodide's binary interface: `2026_0`. */
  readonly abiVersion: string;
  /** As in old platform tags: `emscripten_5_0_3`. */
  readonly platform: string;
  readonly arch: string;
}

/** Names that PEP 508 markers may use; `extra` is added for each evaluation. */
export type MarkerEnvironment = Readonly<Record<string, string>>;

/** What the interpreter itself would answer: `os.name`, `sys.platform`, `platform.machine()` and so on. */
export function markerEnvironment(python: PythonPlatform): MarkerEnvironment {
  return {
    implementation_name: "cpython",
    implementation_version: python.pythonVersion,
    os_name: "posix",
    platform_machine: python.arch,
    platform_python_implementation: "CPython",
    platform_release: python.platform.replace(/^emscripten_/, "").replaceAll("_", "."),
    platform_system: "Emscripten",
    platform_version: "#1",
    python_full_version: python.pythonVersion,
    python_version: majorMinor(python).join("."),
    sys_platform: "emscripten",
  };
}

/**
 * Wheel tags (`python-abi-platform`) that this Python can install, the most specific first, as in `packaging.tags`: its own
 * binary interface, then the stable interface of this and older Pythons, then pure Python.
 */
export function compatibleTags(python: PythonPlatform): readonly string[] {
  const [major, minor] = majorMinor(python);
  const platforms = [
    `pyemscripten_${python.abiVersion}_${python.arch}`,
    `pyodide_${python.abiVersion}_${python.arch}`,
    `${python.platform}_${python.arch}`,
  ];
  const own = `cp${major}${minor}`;
  const tags: string[] = [];
  for (const abi of [own, "abi3", "none"]) tags.push(...platforms.map((platform) => `${own}-${abi}-${platform}`));
  for (let older = minor - 1; older >= 2; older--)
    tags.push(...platforms.map((platform) => `cp${major}${older}-abi3-${platform}`));
  const generic = [`py${major}${minor}`, `py${major}`];
  for (let older = minor - 1; older >= 0; older--) generic.push(`py${major}${older}`);
  for (const tag of generic) tags.push(...platforms.map((platform) => `${tag}-none-${platform}`));
  tags.push(`${own}-none-any`, ...generic.map((tag) => `${tag}-none-any`));
  return tags;
}

function majorMinor(python: PythonPlatform): [number, number] {
  const [major = 3, minor = 0] = python.pythonVersion.split(".").map(Number);
  return [major, minor];
}
