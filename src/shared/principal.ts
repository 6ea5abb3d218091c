export const SCOPES = ["execute", "files", "packages", "secrets", "stats", "admin"] as const;

/** What a key may be used for; none includes another. `admin` is what concerns other principals. */
export type Scope = (typeof SCOPES)[number];

/** Who sends a request. */
export interface Principal {
  /** Owns workspaces, sessions and statistics. */
  readonly id: string;
  /** For logs and people. */
  readonly name: string;
  readonly scopes: ReadonlySet<Scope>;
}

/** Everybody, while authentication is off. */
export const ANONYMOUS: Principal = { id: "anonymous", name: "anonymous", scopes: new Set(SCOPES) };
