import { describe, expect, test } from "vitest";
import { parseApiKeys } from "../http/middleware/authentication.ts";
import { allowedOrigins } from "../http/middleware/cross-site.ts";
import type { HostLimits } from "./host-limits.ts";
import { loadConfig, loadSettings, misspeltSettings, SETTINGS } from "./settings.ts";

const MIB = 2 ** 20;
const limits = (cpus: number, memoryMb: number | null) => (): HostLimits => ({
  cpus: { count: cpus, from: "some processors" },
  memory: memoryMb === null ? null : { bytes: memoryMb * MIB, from: "a limit" },
});

describe("values", () => {
  test("are trimmed, of each setting", () => {
    const config = loadConfig({
      PORT: " 4000\r\n",
      HOST: "\t127.0.0.1 ",
      DATA_DIR: " /srv/data ",
      LOG_LEVEL: " warn ",
      LOG_DIR: " none ",
      LOG_CODE: "true ",
      API_KEY: " a-key-of-some-length \n",
      REDIS_URL: " redis://127.0.0.1:6379 ",
      PACKAGE_INDEX_URL: " https://pypi.example.com/simple\n",
      PYODIDE_PACKAGES: " numpy , pandas ",
      TRUST_PROXY: " 1 ",
      https_proxy: " proxy.example:3128 ",
    });
    expect(config).toMatchObject({
      PORT: 4000,
      HOST: "127.0.0.1",
      DATA_DIR: "/srv/data",
      CACHE_DIR: "/srv/data/cache",
      LOG_LEVEL: "warn",
      LOG_DIR: "",
      LOG_CODE: true,
      API_KEY: "a-key-of-some-length",
      REDIS_URL: "redis://127.0.0.1:6379",
      PACKAGE_INDEX_URL: "https://pypi.example.com/simple",
      PYODIDE_PACKAGES: ["numpy", "pandas"],
      TRUST_PROXY: "1",
      HTTPS_PROXY: "http://proxy.example:3128",
    });
    expect(loadConfig({ PORT: "  ", CORS_ORIGIN: " " })).toMatchObject({ PORT: 3000, CORS_ORIGIN: "" });
    expect(
      parseApiKeys(loadConfig({ API_KEYS: " one : the-key-of-the-first ,\n two:the-key-of-second \n" })),
    ).toHaveLength(2);
  });

  test.each([
    ["LOG_LEVEL", "WARN", "warn"],
    ["SESSION_DURABILITY", "After-Reply", "after-reply"],
    ["ALLOW_ANONYMOUS", "True", true],
    ["LOG_CODE", "ON", true],
    ["LOG_DIR", "NONE", ""],
    ["HOST", "[::1]", "::1"],
  ])("%s=%s is %s", (name, given, expected) => {
    expect(loadConfig({ [name]: given })).toMatchObject({ [name]: expected });
  });
});

describe("origins", () => {
  test.each([
    ["https://App.Example.com", "https://app.example.com"],
    ["https://app.example.com/", "https://app.example.com"],
    ["HTTPS://app.example.com:443", "https://app.example.com"],
    ["http://localhost:80/", "http://localhost"],
    ["http://localhost:5173/", "http://localhost:5173"],
    ["http://[::1]:8080/", "http://[::1]:8080"],
    ["https://bücher.example", "https://xn--bcher-kva.example"],
    ["chrome-extension://abcdef/", "chrome-extension://abcdef"],
    ["https://a.example, https://B.example/ ,", "https://a.example,https://b.example"],
    ["*", "*"],
    ["None", "none"],
  ])("%s is %s", (given, expected) => {
    const config = loadConfig({ CORS_ORIGIN: given });
    expect(config.CORS_ORIGIN).toBe(expected);
    expect([...allowedOrigins(config)].join(expected === "*" ? "" : ",")).toBe(expected);
  });

  test.each([
    "app.example.com",
    "https://",
    "https://a.example/app",
    "https://*.example.com",
    "null",
    "https://u:p@a.example",
    "https://a.example?x",
  ])("%s is refused", (given) => {
    expect(() => loadConfig({ CORS_ORIGIN: given })).toThrow(/CORS_ORIGIN=.*is no origin such as https:\/\/app/);
  });
});

describe("what cannot be used is named, with what would be right, and no secret", () => {
  test.each([
    ["PACKAGE_INDEX_URL", "pypi.org/simple?token=s3cret", /PACKAGE_INDEX_URL: this is no address such as https:/],
    ["PACKAGE_INDEX_URL", "https://", /PACKAGE_INDEX_URL: this is no address/],
    ["PACKAGE_INDEX_URL", "ftp://u:s3cret@host/simple", /PACKAGE_INDEX_URL: this is no address/],
    ["PYODIDE_INDEX_URL", "https//u:s3cret@mirror", /PYODIDE_INDEX_URL: there is no such folder/],
    ["PYODIDE_INDEX_URL", "file:///nowhere/s3cret", /PYODIDE_INDEX_URL: there is no such folder/],
    ["PACKAGE_DIR", "/nowhere", /PACKAGE_DIR="\/nowhere": there is no such folder \(folder of wheels/],
    ["PACKAGE_DIR", "package.json", /PACKAGE_DIR="package.json": this is no folder/],
    ["PYODIDE_INDEX_URL", "s3://u:s3cret@mirror", /PYODIDE_INDEX_URL: this is no address such as .*, and no folder/],
    ["HTTPS_PROXY", "socks5://u:s3cret@proxy:1080", /HTTPS_PROXY: this is no address such as http:\/\/proxy/],
    ["PORT", "0x10", /PORT="0x10": this is no whole number/],
    ["MAX_FILE_SIZE", "10MB", /MAX_FILE_SIZE="10MB": this is no whole number/],
    ["WORKSPACE_MAX_MB", "1e3", /WORKSPACE_MAX_MB="1e3": this is no whole number/],
    ["POOL_SIZE", "5000", /POOL_SIZE="5000": .*1024/],
  ])("%s=%s", (name, given, expected) => {
    const problem = () => loadConfig({ [name]: given });
    expect(problem).toThrow(expected);
    expect(problem).not.toThrow(/s3cret/);
  });

  test.each([
    ["short", "s3cret"],
    ["a line end in it", "s3cret-and\nanother-line"],
  ])("a key: %s", (_, key) => {
    for (const settings of [{ API_KEY: key }, { API_KEYS: `name:${key}` }]) {
      const problem = () => parseApiKeys(loadConfig(settings));
      expect(problem).toThrow(new RegExp(Object.keys(settings)[0] as string));
      expect(problem).not.toThrow(/s3cret/);
    }
  });
});

describe("sizes that are not set", () => {
  test.each([
    { cpus: 4, memoryMb: null, expected: [4, 512] },
    { cpus: 1.5, memoryMb: null, expected: [2, 512] },
    { cpus: 0.2, memoryMb: null, expected: [2, 512] },
    { cpus: 2, memoryMb: 8192, expected: [2, 512] },
    { cpus: 2, memoryMb: 1024, expected: [2, 320] },
    { cpus: 8, memoryMb: 1024, expected: [3, 181] },
    { cpus: 4, memoryMb: 512, expected: [1, 224] },
    { cpus: 4, memoryMb: 100, expected: [1, 128] },
  ])("$cpus processors and $memoryMb MiB: $expected", ({ cpus, memoryMb, expected }) => {
    const { config, inferred } = loadSettings({}, limits(cpus, memoryMb));
    expect([config.POOL_SIZE, config.SANDBOX_MEMORY_MB]).toEqual(expected);
    expect(inferred[0]).toMatchObject({ name: "POOL_SIZE", value: String(expected[0]) });
    if (memoryMb !== null) expect(inferred[1]?.from).toContain("a limit");
  });

  test("what is set stays, and the rest follows from it", () => {
    expect(loadConfig({ POOL_SIZE: "6" }, limits(2, 1024))).toMatchObject({ POOL_SIZE: 6, SANDBOX_MEMORY_MB: 128 });
    expect(loadConfig({ SANDBOX_MEMORY_MB: "600" }, limits(4, 2048))).toMatchObject({
      POOL_SIZE: 2,
      SANDBOX_MEMORY_MB: 600,
    });
    const both = loadSettings({ POOL_SIZE: "6", SANDBOX_MEMORY_MB: "600" }, limits(2, 512));
    expect(both.config).toMatchObject({ POOL_SIZE: 6, SANDBOX_MEMORY_MB: 600 });
    expect(both.inferred).toEqual([]);
  });

  test("sandboxes that are kept unused count", () => {
    const config = loadConfig({ SANDBOX_SHARING: "principal" }, limits(8, 2048));
    expect(config.POOL_SIZE).toBe(4);
    expect(6 * (config.SANDBOX_MEMORY_MB + 96)).toBeLessThanOrEqual(2048 - 192);
  });
});

describe("variables that nearly have a setting's name", () => {
  test.each([
    ["POOL_SZIE", "POOL_SIZE"],
    ["POOL_SIZES", "POOL_SIZE"],
    ["pool_size", "POOL_SIZE"],
    ["EXECUTION_TIMOUT_MS", "EXECUTION_TIMEOUT_MS"],
    ["EXECUTION_TIMEOUTMS", "EXECUTION_TIMEOUT_MS"],
    ["PACKAGE_DIRS", "PACKAGE_DIR"],
    ["NETWORK_ALOW", "NETWORK_ALLOW"],
  ])("%s: %s is meant", (name, meant) => {
    expect(misspeltSettings({ [name]: "1", PATH: "/bin" })).toEqual([{ name, meant }]);
  });

  test("settings themselves, and names that others give their variables, are not", () => {
    const settings = [...Object.keys(SETTINGS), "http_proxy", "https_proxy", "no_proxy"];
    const others =
      "PATH HOME USER SHELL TERM LANG PWD HOSTNAME PORTS SECRETS_DIR NODE_OPTIONS NODE_PATH REDIS_PORT KUBERNETES_PORT npm_package_name OPENAI_API_KEY TMPDIR all_proxy DATABASE_URL LOGNAME CACHE";
    for (const name of [...settings, ...others.split(" "), ...Object.keys(process.env)])
      if (!/^vitest/i.test(name)) expect(misspeltSettings({ [name]: "1" }), name).toEqual([]);
  });
});
