import { JsonText } from "../shared/json/json-text.ts";
import {
  BUNDLE_OVERHEAD_BYTES,
  MAX_BUNDLE_MEMBERS,
  MAX_DISPLAY_BYTES,
  MAX_DISPLAYS,
  MAX_METADATA_BYTES,
  MAX_METADATA_DEPTH,
  MAX_SHOWN_BYTES,
} from "../wire/display-limits.ts";
import type { DisplayMessage } from "../wire/guest-messages.ts";
import { ProtocolError } from "../wire/protocol-error.ts";
import type { DisplayedValue } from "./outcome.ts";

/** Names may be as long as Python has them. */
const LIMITS = { maxNameBytes: Number.POSITIVE_INFINITY, compact: true };
const BUNDLE_LIMITS = { ...LIMITS, maxDepth: 1, maxNodes: 1 + MAX_BUNDLE_MEMBERS };
/** No value takes less than a byte. */
const METADATA_LIMITS = { ...LIMITS, maxDepth: MAX_METADATA_DEPTH, maxNodes: MAX_METADATA_BYTES };

/** Displayed data: a MIME bundle, an object of strings. Those of JSON types are JSON. */
export interface DisplayedOutput {
  readonly type: "output";
  readonly bundle: JsonText;
  /** A name by which it can be updated. */
  readonly displayId?: string;
  /** It takes the place of what was displayed by that name. */
  readonly isUpdate?: boolean;
  /** What is said about the data: an object by MIME type. */
  readonly metadata?: JsonText;
}

/** What an execution displays, checked and counted. */
export class Displays {
  readonly #outputs = new DisplayedOutputs();
  #value: DisplayedValue | null = null;
  #count = 0;
  #bytes = 0;

  /** As the result has them; what comes later changes nothing in it. */
  get bundles(): readonly JsonText[] {
    return [...this.#outputs.bundles];
  }

  /** The last expression's value. Code can send such bundles itself, at its device: the last one counts. */
  get value(): DisplayedValue | null {
    return this.#value;
  }

  /** @returns the event that it is; null: it is the value. @throws {ProtocolError} */
  async take(message: DisplayMessage, body: Uint8Array): Promise<DisplayedOutput | null> {
    const { kind, displayId, metadataBytes = 0 } = message;
    this.#countOne(body.length);
    const bundleBytes = body.length - metadataBytes;
    if (bundleBytes < 0) throw new ProtocolError("a display's parts do not fit its body");
    const bundle = await JsonText.checkInSlices(body.subarray(0, bundleBytes), BUNDLE_LIMITS);
    if (bundle.facts.kind !== "object" || bundle.facts.texts !== bundle.facts.nodes - 1)
      throw new ProtocolError("a bundle that is none");
    const metadata = metadataBytes > 0 ? JsonText.check(body.subarray(bundleBytes), METADATA_LIMITS) : undefined;
    if (metadata && metadata.facts.kind !== "object") throw new ProtocolError("metadata that is none");
    const displayed = { bundle, ...(metadata && { metadata }) };
    if (kind === "value") {
      if (sizeOf(bundle) > MAX_SHOWN_BYTES) throw new ProtocolError("a value's bundle over its limit");
      this.#value = displayed;
      return null;
    }
    const isUpdate = kind === "update";
    this.#outputs.show(bundle, displayId, isUpdate);
    return {
      type: "output",
      ...displayed,
      ...(displayId !== undefined && { displayId }),
      ...(isUpdate && { isUpdate }),
    };
  }

  /** @throws {ProtocolError} */
  clear(wait: boolean): void {
    this.#countOne(0);
    this.#outputs.clear(wait);
  }

  somethingCame(): void {
    this.#outputs.somethingCame();
  }

  #countOne(bytes: number): void {
    this.#bytes += bytes + BUNDLE_OVERHEAD_BYTES;
    if (this.#bytes > MAX_DISPLAY_BYTES || ++this.#count > MAX_DISPLAYS)
      throw new ProtocolError("more displayed than there can be");
  }
}

/** A byte of data is one here at least, so that this is never more than the runner counts. */
function sizeOf({ facts }: JsonText): number {
  return facts.textBytes + BUNDLE_OVERHEAD_BYTES;
}

/** An update stands in the place of what it updates, and what was cleared is gone. */
export class DisplayedOutputs {
  #bundles: JsonText[] = [];
  /** Of each name: where it stands; nowhere once it was cleared. */
  readonly #places = new Map<string, number[]>();
  #clearsNext = false;
  /** In all places: a bundle may stand in many, and each is a part of the reply. */
  #bytes = 0;

  get bundles(): readonly JsonText[] {
    return this.#bundles;
  }

  /**
   * @param isUpdate of what has this name; where that is an earlier execution's, it is shown itself.
   * @throws {ProtocolError} more is shown at a time than there can be.
   */
  show(bundle: JsonText, displayId?: string, isUpdate = false): void {
    this.somethingCame();
    const places = displayId === undefined ? undefined : this.#places.get(displayId);
    if (isUpdate && places) {
      const before = places.reduce((sum, place) => sum + sizeOf(this.#bundles[place] as JsonText), 0);
      this.#count(places.length * sizeOf(bundle) - before);
      for (const place of places) this.#bundles[place] = bundle;
      return;
    }
    this.#count(sizeOf(bundle));
    const place = this.#bundles.push(bundle) - 1;
    if (places) places.push(place);
    else if (displayId !== undefined) this.#places.set(displayId, [place]);
  }

  /** @param wait until something else comes: if nothing does, all of it stays. */
  clear(wait: boolean): void {
    this.#clearsNext = wait;
    if (wait) return;
    this.#bundles = [];
    this.#bytes = 0;
    for (const places of this.#places.values()) places.length = 0;
  }

  #count(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes > MAX_SHOWN_BYTES) throw new ProtocolError("more shown at a time than there can be");
  }

  /** Called when something is printed or displayed. */
  somethingCame(): void {
    if (this.#clearsNext) this.clear(false);
  }
}
