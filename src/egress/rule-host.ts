import { NetworkFailure } from "./failure.ts";
import { type NetworkTarget, parseTarget } from "./target.ts";

/** What the host of a rule may look like, for the errors that say so. */
export const RULE_HOST_FORM =
  "Write one host, as api.example.com (https), api.example.com:8443 or http://intranet.example:8080; wildcards are for allowOut alone";

/**
 * Reads the host of a rule, or of a secret's `hosts`: one origin, so that a credential goes to one place and over one scheme.
 *
 * @param text `api.example.com` and `api.example.com:8443` stand for https; plain HTTP has to be asked for, as `http://intranet.example`.
 * @returns null if it is none, or has a wildcard or a path in it.
 */
export function parseRuleHost(text: string): NetworkTarget | null {
  const match = /^(?:(https?):\/\/)?(\[[0-9a-f:.]+\]|[^\s:/?#@[\]*\\]+)(?::(\d{1,5}))?$/iu.exec(text);
  if (match === null) return null;
  const [, scheme = "https", host = "", port] = match;
  try {
    return parseTarget(`${scheme}://${host}${port === undefined ? "" : `:${port}`}`);
  } catch (error) {
    if (error instanceof NetworkFailure) return null;
    throw error;
  }
}
