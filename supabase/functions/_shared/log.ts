/** What a handler learns of a request on its way. */
export interface RequestFacts {
  body_bytes?: number;
  signals?: number;
  accepted?: number;
  duplicate?: number;
  rejected?: number;
  /** The database function that was asked, where a function can ask several. */
  rpc?: string;
  /** The id of an API key, never the key. */
  api_key_id?: string;
}

/** One line about one request. Never holds a token, a signal or a key. */
export interface LogRecord extends Readonly<RequestFacts> {
  readonly function: string;
  readonly correlation_id: string;
  readonly request_id: string;
  readonly method: string;
  readonly status: number;
  readonly ms: number;
  readonly code?: string;
  readonly sqlstate?: string;
  readonly failure?: string;
}

export function writeLog(record: LogRecord): void {
  const line = JSON.stringify(record);
  if (record.status >= 500) console.error(line);
  else console.log(line);
}

/**
 * Where an unexpected error came from, without its message: messages may quote the request.
 */
export function failureOf(error: unknown): string {
  if (!(error instanceof Error)) return typeof error;
  const frames = (error.stack ?? "").split("\n").filter((line) => line.startsWith("    at "));
  return [error.name, ...frames.slice(0, 3).map((frame) => frame.trim())].join(" ");
}
