import type { LogRecord } from "./log.ts";

/** What a handler needs of the world. */
export interface Dependencies {
  readonly fetch: (input: string, init: RequestInit) => Promise<Response>;
  /** Where the REST API is, without a slash at the end. */
  readonly supabaseUrl: string;
  /** The project's anon or publishable key: it names the project, the access token the user. */
  readonly projectKey: string;
  readonly log: (record: LogRecord) => void;
  readonly newId: () => string;
  /** A clock for durations. */
  readonly milliseconds: () => number;
  /** The time of day, in milliseconds since 1970. */
  readonly now: () => number;
}
