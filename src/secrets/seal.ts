import { createCipheriv, createDecipheriv, createHash, randomBytes } from "node:crypto";
import { StartupError } from "../shared/errors.ts";

const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const ALGORITHM = "aes-256-gcm";

/** A text that only the operator's key opens. Members are base64. */
export interface Sealed {
  readonly v: 1;
  /** Which key: the beginning of its SHA-256. */
  readonly key: string;
  readonly nonce: string;
  readonly tag: string;
  readonly text: string;
}

interface Key {
  readonly id: string;
  readonly bytes: Buffer;
}

/** Encrypts secrets with AES-256-GCM. The first key encrypts, each decrypts: so a key can be changed. */
export class Seal {
  readonly #keys: readonly Key[];

  /**
   * @param text keys of 32 bytes in hex or base64, comma separated.
   * @throws {StartupError} if one is none; it is not repeated.
   */
  constructor(text: string) {
    this.#keys = text
      .split(",")
      .map((key) => key.trim())
      .filter((key) => key !== "")
      .map((key, index) => {
        const bytes = Buffer.from(key, /^[0-9a-f]{64}$/i.test(key) ? "hex" : "base64");
        if (bytes.length !== KEY_BYTES || !/^[\w+/=-]+$/.test(key)) {
          throw new StartupError(
            `SECRETS_KEY, key ${index + 1}: it is not 32 bytes in hex or base64. Make one: openssl rand -hex 32`,
          );
        }
        return { id: createHash("sha256").update(bytes).digest("base64url").slice(0, 12), bytes };
      });
  }

  /** Whether there is a key. */
  get isUsable(): boolean {
    return this.#keys.length > 0;
  }

  /** @param owner what it is bound to: it opens for this alone. */
  seal(text: string, owner: string): Sealed {
    const [key] = this.#keys;
    if (!key) throw new Error("there is no key to seal with");
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv(ALGORITHM, key.bytes, nonce).setAAD(Buffer.from(owner));
    const sealed = Buffer.concat([cipher.update(text, "utf8"), cipher.final()]);
    return {
      v: 1,
      key: key.id,
      nonce: nonce.toString("base64"),
      tag: cipher.getAuthTag().toString("base64"),
      text: sealed.toString("base64"),
    };
  }

  /** @returns null: no key opens it, or it was changed, or is another owner's. */
  open({ key: id, nonce, tag, text }: Sealed, owner: string): string | null {
    const key = this.#keys.find((one) => one.id === id);
    if (!key) return null;
    try {
      const decipher = createDecipheriv(ALGORITHM, key.bytes, Buffer.from(nonce, "base64"), { authTagLength: 16 });
      decipher.setAAD(Buffer.from(owner)).setAuthTag(Buffer.from(tag, "base64"));
      return Buffer.concat([decipher.update(Buffer.from(text, "base64")), decipher.final()]).toString("utf8");
    } catch {
      return null;
    }
  }
}
