import type { Dependencies } from "./dependencies.ts";
import type { RequestFacts } from "./log.ts";

/** One request on its way: what it is called, and what is learnt of it for the log. */
export interface Exchange {
  readonly dependencies: Dependencies;
  readonly correlationId: string;
  /** Names the request in an error: the caller's own id as soon as it has been read. */
  requestId: string;
  readonly facts: RequestFacts;
}
