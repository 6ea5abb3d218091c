import { PackageError } from "../packages/package-error.ts";
import type { PythonPlatform } from "../packages/pep/platform.ts";
import { normaliseName, parseRequirement } from "../packages/pep/requirements.ts";
import { resolve } from "../packages/resolver.ts";
import type { PackageSource } from "../packages/sources/package-source.ts";
import type { PyodideLock } from "../packages/sources/pyodide-lock.ts";
import { whileWaiting } from "../shared/while-waiting.ts";
import type { Environment } from "./build.ts";

/** How long sources are asked, ms: code has failed already, and its caller waits for no more than the message. */
const MAX_ASKING_MS = 3000;

/** Modules of packages that Pyodide does not list and that have another name. */
const OTHER_NAMES: Readonly<Record<string, string>> = {
  Crypto: "pycryptodome",
  Cryptodome: "pycryptodomex",
  Levenshtein: "levenshtein",
  MySQLdb: "mysqlclient",
  OpenSSL: "pyOpenSSL",
  PIL: "pillow",
  attr: "attrs",
  bs4: "beautifulsoup4",
  cairo: "pycairo",
  cv2: "opencv-python",
  dateutil: "python-dateutil",
  discord: "discord.py",
  dns: "dnspython",
  docx: "python-docx",
  dotenv: "python-dotenv",
  faiss: "faiss-cpu",
  fitz: "PyMuPDF",
  flask_cors: "Flask-Cors",
  git: "GitPython",
  github: "PyGithub",
  googleapiclient: "google-api-python-client",
  igraph: "python-igraph",
  jose: "python-jose",
  jwt: "PyJWT",
  kafka: "kafka-python",
  ldap: "python-ldap",
  magic: "python-magic",
  markdown: "Markdown",
  multipart: "python-multipart",
  nacl: "PyNaCl",
  pdfminer: "pdfminer.six",
  pkg_resources: "setuptools",
  pptx: "python-pptx",
  psycopg2: "psycopg2-binary",
  pymupdf: "PyMuPDF",
  pythoncom: "pywin32",
  ruamel: "ruamel.yaml",
  serial: "pyserial",
  sentence_transformers: "sentence-transformers",
  skimage: "scikit-image",
  sklearn: "scikit-learn",
  slugify: "python-slugify",
  snappy: "python-snappy",
  socks: "PySocks",
  speech_recognition: "SpeechRecognition",
  telegram: "python-telegram-bot",
  umap: "umap-learn",
  usb: "pyusb",
  win32api: "pywin32",
  win32com: "pywin32",
  wx: "wxPython",
  yaml: "PyYAML",
  zmq: "pyzmq",
};

/** Packages that code often asks for, whose module has the same name and that Pyodide does not list. */
const SAME_NAME: readonly string[] = (
  "django fastapi flask gradio jax keras mcp numba ollama openai plotly psutil pyarrow pydub pygame pyspark " +
  "ray reportlab scrapy seaborn selenium spacy streamlit tensorflow torch torchvision tqdm transformers tabulate " +
  "uvicorn xlsxwriter xlrd openpyxl nltk anthropic"
).split(" ");

export interface ModuleOwnersOptions {
  readonly lock: PyodideLock;
  readonly sources: readonly PackageSource[];
  readonly python: PythonPlatform;
}

/** Which package a module is part of, and whether that can be installed: what a failed import is told. */
export class ModuleOwners {
  readonly #options: ModuleOwnersOptions;
  readonly #packages: ReadonlyMap<string, string>;

  constructor(options: ModuleOwnersOptions) {
    this.#options = options;
    const listed = [...options.lock.packages.values()].flatMap(({ name, imports }) =>
      imports.map((module): [string, string] => [module.split(".", 1)[0] as string, name]),
    );
    this.#packages = new Map([
      ...SAME_NAME.map((name): [string, string] => [name, name]),
      ...Object.entries(OTHER_NAMES),
      // Pyodide's own tests and such come last in its list, so the first one is the package.
      ...listed.toReversed(),
    ]);
  }

  /**
   * Says which package a module is part of and how to install it.
   *
   * Only for modules that are known: for any other name a package of that name would be a guess, and may be a trap.
   *
   * @param mayInstall whether the caller's key has the scope for it.
   * @param others environments that it may name instead.
   * @param signal of the code that waits.
   * @param meant the environment that the code would run in if that had any package; null: it does.
   * @returns a clause without a full stop; null: the module is not known.
   */
  async explain(
    module: string,
    environment: Environment,
    {
      mayInstall,
      others,
      meant,
      signal,
    }: { mayInstall: boolean; others: readonly Environment[]; meant: Environment | null; signal: AbortSignal },
  ): Promise<string | null> {
    const name = this.#packages.get(module);
    if (name === undefined) return null;
    const key = normaliseName(name);
    const isNamesake = key === normaliseName(module);
    const part = isNamesake ? "the package" : `it is part of the package ${name}, which`;
    const installed = environment.packages.find((item) => item.key === key);
    if (installed !== undefined) return null;
    for (const { name, missing } of meant === null ? [environment] : [environment, meant]) {
      const left = Object.entries(missing).find(([text]) => keyOf(text) === key)?.[1];
      const subject = isNamesake ? "" : `${part} `;
      if (left !== undefined) return `${subject}the environment "${name}" goes without: ${withoutStop(left)}`;
    }
    const other = others.find((item) => item.packages.some((has) => has.key === key));
    const elsewhere = other === undefined ? "" : `; the environment "${other.name}" has it`;
    if (!mayInstall) return `${part} is not installed, and this API key may not install packages${elsewhere}`;
    const how = `install it with \`await micropip.install("${name}")\` or a line \`%pip install ${name}\``;
    const reason = await this.#whyNot(name, environment, signal);
    if (reason === undefined) return `${part} is not installed${elsewhere || `; ${how}`}`;
    const { unreached } = meant ?? environment;
    const unless =
      unreached === null ? "" : `, if sources answer again: when the server started, ${unreached.sources.join("; ")}`;
    if (reason === null) return `${part} is not installed; ${how}${unless}${elsewhere}`;
    return `${part} is not installed here and cannot be: ${withoutStop(reason)}${elsewhere}`;
  }

  /** Why a package cannot be installed; null: it can; undefined: the sources take too long to say. */
  async #whyNot(name: string, environment: Environment, stopped: AbortSignal): Promise<string | null | undefined> {
    const { sources, python } = this.#options;
    const ended = new AbortController();
    const timer = setTimeout(() => ended.abort(), MAX_ASKING_MS);
    try {
      const options = { sources, python, fixed: environment.packages, signal: ended.signal };
      await whileWaiting(stopped, whileWaiting(ended.signal, resolve([parseRequirement(name)], options)));
      return null;
    } catch (error) {
      if (error instanceof PackageError) return error.message;
      if (ended.signal.aborted || stopped.aborted) return undefined;
      throw error;
    } finally {
      clearTimeout(timer);
      ended.abort();
    }
  }
}

function keyOf(requirement: string): string | null {
  try {
    return parseRequirement(requirement).key;
  } catch {
    return null;
  }
}

function withoutStop(sentence: string): string {
  return sentence.replace(/\.$/, "");
}
