import type { LossReason } from "./subscription.ts";

/** How a channel ended, and what to do about it. */
export interface Loss {
  readonly reason: LossReason;
  /** Whether the server wants another access token. */
  readonly renewsToken: boolean;
  /** What the server or the library said. */
  readonly said: string;
}

const TOKEN_REFUSED = /JWT|Jwt|Token has expired/;
const ACCESS_REFUSED = /^Unauthorized|permission|^API key/;
const RATE_LIMITED = /Too many|RateLimit|rate limit/;
const SILENT = /heartbeat timeout/;

/** What the words of the server, or of the library, mean. */
export function lossOf(said: string): Loss {
  const renewsToken = TOKEN_REFUSED.test(said);
  return { reason: reasonOf(said, renewsToken), renewsToken, said };
}

function reasonOf(said: string, tokenRefused: boolean): LossReason {
  if (tokenRefused || ACCESS_REFUSED.test(said)) return "access_refused";
  if (RATE_LIMITED.test(said)) return "rate_limited";
  return SILENT.test(said) ? "silent" : "connection_lost";
}
