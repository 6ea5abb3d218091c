import type { NetworkInput } from "../../egress/network-rules.ts";
import type { RecordChanges, SessionRecord } from "../../sessions/store.ts";
import { steadyNowMs } from "../../shared/steady-clock.ts";

/** Of what its creator said of the network, what was understood. */
export interface KeptNetwork extends NetworkInput {
  readonly denyOut?: readonly string[];
  readonly allowPublicTraffic?: boolean;
}

/** What E2B's clients know of a session that is a sandbox of theirs; kept with the session. */
export interface SandboxState {
  readonly kind: "sandbox";
  /** As its creator named it. */
  readonly template: string;
  readonly startedAtMs: number;
  readonly endAtMs: number;
  /** It had so long when its end was last set, s; one that traffic resumes has it again. */
  readonly timeoutS: number;
  readonly onTimeout: "kill" | "pause";
  readonly autoResume: boolean;
  readonly isPaused: boolean;
  /** For each execution; null: they are its own since it began. */
  readonly env: Readonly<Record<string, string>> | null;
  /** As its creator said, to be shown. */
  readonly envVars: Readonly<Record<string, string>>;
  readonly network: KeptNetwork | null;
  readonly allowInternetAccess: boolean | null;
}

/** A sandbox as it was, from which others are made. */
export interface SnapshotState {
  readonly kind: "snapshot";
  readonly sandbox: string;
  readonly name: string | null;
  readonly createdAtMs: number;
  /** What a sandbox that is made of it goes on with. */
  readonly from: SandboxState;
}

/** What is paused, or kept as a snapshot, ends when nothing was done with it for so long. */
export const KEPT_MS = 365 * 24 * 60 * 60 * 1000;
const PROTOCOL = "e2b";

export function sandboxOf({ adapter }: Pick<SessionRecord, "adapter">): SandboxState | null {
  const state = stateOf(adapter);
  return state?.kind === "sandbox" ? state : null;
}

export function snapshotOf({ adapter }: Pick<SessionRecord, "adapter">): SnapshotState | null {
  const state = stateOf(adapter);
  return state?.kind === "snapshot" ? state : null;
}

function stateOf(adapter: SessionRecord["adapter"]): SandboxState | SnapshotState | null {
  return adapter?.protocol === PROTOCOL ? (adapter.state as SandboxState | SnapshotState) : null;
}

/** One whose time is over is paused, where that was asked for: nothing has to notice it. */
export function isPaused({ isPaused, onTimeout, endAtMs }: SandboxState): boolean {
  return isPaused || (onTimeout === "pause" && endAtMs <= steadyNowMs());
}

/** What a session's record has of a sandbox. */
export function kept(state: SandboxState): Required<Pick<RecordChanges, "ttlMs" | "endsAtMs" | "adapter">> {
  const ends = state.onTimeout === "kill" && !state.isPaused;
  return {
    ttlMs: KEPT_MS,
    endsAtMs: ends ? state.endAtMs : undefined,
    adapter: { protocol: PROTOCOL, state },
  };
}

export function keptSnapshot(state: SnapshotState): Required<Pick<RecordChanges, "ttlMs" | "endsAtMs" | "adapter">> {
  return { ttlMs: KEPT_MS, endsAtMs: undefined, adapter: { protocol: PROTOCOL, state } };
}

/** With so long to go from now, s. */
export function running(state: SandboxState, timeoutS: number): SandboxState {
  return { ...state, isPaused: false, timeoutS, endAtMs: steadyNowMs() + timeoutS * 1000 };
}
