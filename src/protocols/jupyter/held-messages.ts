import { Tally } from "../../shared/tally.ts";
import type { Message } from "./messages.ts";

const MIB = 1024 * 1024;
/** Most that is held for all clients of one principal that are away, and for all there are, bytes of output; with what is never left out twice as much. */
export const HELD_LIMITS = { ofPrincipal: 64 * MIB, inAll: 256 * MIB } as const;
/** What a message takes for each client that it waits for. */
const PLACE_BYTES = 64;

/** Counts what this server holds for clients that are away: a message that waits for several is there once. */
export class HeldMessages {
  /** How many clients each message waits for. */
  readonly #places = new Map<Message, number>();
  readonly #ofPrincipal = new Tally<string>();
  #bytes = 0;

  get bytes(): number {
    return this.#bytes;
  }

  /** For one client more. @param principal whose kernel the message is of. @returns false: there is no room. */
  hold(principal: string, message: Message): boolean {
    const places = this.#places.get(message) ?? 0;
    const bytes = PLACE_BYTES + (places === 0 ? message.bytes : 0);
    const share = message.isOutput ? 1 : 2;
    const { ofPrincipal, inAll } = HELD_LIMITS;
    if (this.#ofPrincipal.of(principal) + bytes > share * ofPrincipal || this.#bytes + bytes > share * inAll)
      return false;
    this.#places.set(message, places + 1);
    this.#ofPrincipal.add(principal, bytes);
    this.#bytes += bytes;
    return true;
  }

  /** For one client less. */
  release(principal: string, message: Message): void {
    const places = (this.#places.get(message) ?? 0) - 1;
    const bytes = PLACE_BYTES + (places === 0 ? message.bytes : 0);
    if (places === 0) this.#places.delete(message);
    else this.#places.set(message, places);
    this.#ofPrincipal.remove(principal, bytes);
    this.#bytes -= bytes;
  }
}
