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
/** What ends everybody's connection: 1001 is going away, 1012 a restart. */
const EVERYONE = /socket closed: (1001|1012)\b|RealtimeRestarting/;
/** Ten thousand that come back within it are as many joins as a project may have in a second. */
const SPREAD_MS = 3000;
/** Half of the longest pause: a plan has hardly more connections than joins in a second. */
const LONGEST_PAUSE_AT_LIMIT_MS = 4000;

/** What the words of the server, or of the library, mean. */
export function lossOf(said: string): Loss {
  const renewsToken = TOKEN_REFUSED.test(said);
  return { reason: reasonOf(said, renewsToken), renewsToken, said };
}

/** The least pause before the next join, after `attempt` (1, 2, …) in a row ended. */
export function leastPauseMs(attempt: number, loss: Loss, random = Math.random): number {
  if (loss.reason === "rate_limited") {
    return (1 + random()) * Math.min(1000 * 2 ** attempt, LONGEST_PAUSE_AT_LIMIT_MS);
  }
  return EVERYONE.test(loss.said) ? random() * SPREAD_MS : 0;
}

function reasonOf(said: string, tokenRefused: boolean): LossReason {
  if (tokenRefused || ACCESS_REFUSED.test(said)) return "access_refused";
  if (RATE_LIMITED.test(said)) return "rate_limited";
  return SILENT.test(said) ? "silent" : "connection_lost";
}
