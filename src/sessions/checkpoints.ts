import { ClientError } from "../shared/errors.ts";
import { steadyNowMs } from "../shared/steady-clock.ts";
import { namespacesAsOf } from "./namespaces.ts";
import { checkState, PREVIOUS, pristine, toStored } from "./states.ts";
import type { CheckpointRef, SessionRecord, SessionStore } from "./store.ts";
import type { SessionTurns } from "./turns.ts";
import { type CheckpointView, checkedName, refusePinned, viewOfCheckpoint } from "./views.ts";

const MAX_CHECKPOINTS = 32;

export interface SessionCheckpointsOptions {
  readonly turns: SessionTurns;
  readonly store: SessionStore;
  /** Names the image of an environment. */
  readonly identityOf: (environment: string) => string;
}

/** States of sessions that were given a name, and the way back to them. */
export class SessionCheckpoints {
  readonly #turns: SessionTurns;
  readonly #store: SessionStore;
  readonly #identityOf: (environment: string) => string;

  constructor({ turns, store, identityOf }: SessionCheckpointsOptions) {
    this.#turns = turns;
    this.#store = store;
    this.#identityOf = identityOf;
  }

  /** @throws {ClientError} 400 `invalid_checkpoint_name`, 409 `checkpoint_exists`, 409 `checkpoint_limit`. */
  async create(principal: string, id: string, signal: AbortSignal, name?: string): Promise<CheckpointView> {
    return await this.#turns.runChange(principal, id, signal, async (live, lease) => {
      refusePinned(live, "checkpointed");
      const { checkpoints } = lease.record;
      const free = (n: number): string =>
        checkpoints.some((c) => c.name === `checkpoint-${n}`) ? free(n + 1) : `checkpoint-${n}`;
      const chosen = name === undefined ? free(checkpoints.length + 1) : checkedName(name, "checkpoint name");
      if (checkpoints.some((other) => other.name === chosen)) {
        throw new ClientError("checkpoint_exists", `Checkpoint "${chosen}" already exists`);
      }
      if (checkpoints.length >= MAX_CHECKPOINTS) {
        throw new ClientError("checkpoint_limit", `A session may have at most ${MAX_CHECKPOINTS} checkpoints.`);
      }
      let { head } = lease.record;
      let stored: Awaited<ReturnType<typeof toStored>>["stored"] | undefined;
      if (head === null) {
        ({ ref: head, stored } = await toStored(pristine(this.#identityOf(lease.record.environment)), new Map()));
      }
      const { namespaces } = lease.record;
      const checkpoint: CheckpointRef = {
        ...head,
        name: chosen,
        createdAtMs: steadyNowMs(),
        ...(namespaces && { namespaces }),
      };
      await this.#turns.change(live, lease, { head, checkpoints: [...checkpoints, checkpoint] }, stored);
      return viewOfCheckpoint(checkpoint);
    });
  }

  async list(principal: string, id: string): Promise<readonly CheckpointView[]> {
    const { previous, checkpoints } = await this.#turns.record(principal, id);
    const automatic = previous ? [{ ...previous, name: PREVIOUS }] : [];
    return [...automatic, ...checkpoints].map(viewOfCheckpoint);
  }

  /**
   * Goes back to a checkpoint, or to the state before the last change (`@previous`).
   *
   * @throws {ClientError} 404 `Checkpoint not found`, 409 `session_damaged` if that one cannot be used either.
   */
  async restore(principal: string, id: string, signal: AbortSignal, name: string): Promise<SessionRecord> {
    return await this.#turns.runChange(principal, id, signal, async (live, lease) => {
      const { record } = lease;
      const ref = name === PREVIOUS ? record.previous : record.checkpoints.find((other) => other.name === name);
      if (!ref) throw new ClientError("not_found", "Checkpoint not found");
      await checkState(this.#store, record, ref);
      this.#turns.evict(live);
      live.setback = null;
      const { sha256, size, fileBytes, executions, createdAtMs } = ref;
      await this.#turns.change(live, lease, {
        head: { sha256, size, fileBytes, executions, createdAtMs },
        previous: record.head,
        namespaces: namespacesAsOf(record, ref.namespaces),
      });
      return lease.record;
    });
  }

  /** Back to the image: no variable, no file; executions count from 1 again. Checkpoints stay. */
  async reset(principal: string, id: string, signal: AbortSignal): Promise<SessionRecord> {
    return await this.#turns.runChange(principal, id, signal, async (live, lease) => {
      this.#turns.evict(live);
      live.setback = null;
      await this.#turns.change(live, lease, {
        head: null,
        previous: lease.record.head,
        executions: 0,
        namespaces: undefined,
        reseed: true,
      });
      return lease.record;
    });
  }
}
