import type { Exports } from "./emscripten.ts";
import { bytesOf, withCString } from "./python-objects.ts";

/** Words of a Mersenne Twister's state. */
const STATE_WORDS = 624;
/** What `seeds.py` says of each: three words, then state and position. */
const FACTS_WORDS = 3 + STATE_WORDS + 1;

/** Offsets in words of the memory. */
interface Generator {
  readonly state: number;
  readonly position: number;
}

/**
 * The random generators that all code shares, Python's own and numpy's legacy one, seeded by writing random words over their states. Where they lie
 * is a part of the image: it holds at the baseline only, and not for a session, which may have others.
 */
export class Generators {
  readonly #memory: WebAssembly.Memory;
  readonly #found: readonly Generator[] | null;

  /** At the baseline. */
  constructor(exports: Exports) {
    this.#memory = exports.memory;
    const module = withCString(exports, "sandbox_runner.seeds", (name) => exports.PyImport_ImportModule(name));
    const places = module && withCString(exports, "places", (name) => exports.PyObject_GetAttrString(module, name));
    if (!places) throw new Error("sandbox_runner.seeds is missing in the image");
    const bytes = bytesOf(exports, places);
    exports.Py_DecRef(places);
    this.#found = find(new Uint32Array(bytes.buffer), new Uint32Array(exports.memory.buffer));
  }

  /** Whether each was found where the image says; else Python has to seed them. */
  get areKnown(): boolean {
    return this.#found !== null;
  }

  seed(): void {
    const words = new Uint32Array(this.#memory.buffer);
    for (const { state, position } of this.#found ?? []) {
      crypto.getRandomValues(words.subarray(state, state + STATE_WORDS));
      // Used up: the next number that is drawn stirs the words first.
      words[position] = STATE_WORDS;
    }
  }
}

/** @returns null: what lies there is not what was said. */
function find(said: Uint32Array, words: Uint32Array): Generator[] | null {
  if (said.length === 0 || said.length % FACTS_WORDS !== 0) return null;
  const found: Generator[] = [];
  for (let at = 0; at < said.length; at += FACTS_WORDS) {
    const [address, bytes, isBehind] = said.subarray(at, at + 3) as unknown as [number, number, number];
    const state = said.subarray(at + 3, at + FACTS_WORDS - 1);
    const first = address / 4;
    const last = first + bytes / 4 - STATE_WORDS;
    const isThere = (from: number) => state.every((word, index) => words[from + index] === word);
    let from = first;
    while (from <= last && !isThere(from)) from++;
    const position = isBehind === 1 ? from + STATE_WORDS : from - 1;
    if (from > last || words[position] !== said[at + FACTS_WORDS - 1]) return null;
    found.push({ state: from, position });
  }
  return found;
}
