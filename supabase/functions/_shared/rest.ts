import { isErrorCode } from "./contract.ts";
import { ApiError } from "./errors.ts";
import type { Exchange } from "./exchange.ts";
import { isObject } from "./signal.ts";

/** The API roles' statement timeout is 8 s; the rest is for waiting on a connection. */
const TIMEOUT_MS = 10_000;

/**
 * Call a function of schema `public` as the owner of the access token; return its JSON text.
 *
 * Throws an `ApiError` with a code of the catalogue. After `unavailable` and `internal` it is not
 * known whether the call took place.
 */
export function callRpc(
  name: string,
  body: string | Uint8Array<ArrayBuffer>,
  accessToken: string,
  exchange: Exchange,
): Promise<string> {
  const { projectKey } = exchange.dependencies;
  return post(name, body, { apikey: projectKey, authorization: `Bearer ${accessToken}` }, exchange);
}

/**
 * Call a function of schema `public` as the service itself, with the project's secret key.
 *
 * A secret key that is refused is no fault of the caller, so `unauthorized` becomes `internal`.
 */
export async function callRpcAsService(
  name: string,
  body: string,
  secretKey: string,
  exchange: Exchange,
): Promise<string> {
  // Only the legacy service_role key is a token; `sb_secret_…` alone says all.
  const credentials: Record<string, string> = { apikey: secretKey };
  if (!secretKey.startsWith("sb_")) credentials.authorization = `Bearer ${secretKey}`;
  try {
    return await post(name, body, credentials, exchange);
  } catch (error) {
    if (!(error instanceof ApiError) || error.code !== "unauthorized") throw error;
    throw new ApiError("internal", undefined, { sqlstate: error.sqlstate });
  }
}

/**
 * Call a function that answers with bytes, and return them when all are there. Aborting `ended`
 * gives the call up. Throws as `callRpc` does.
 */
export async function callRpcForBytes(
  name: string,
  body: string,
  accessToken: string,
  exchange: Exchange,
  ended: AbortSignal,
): Promise<Uint8Array<ArrayBuffer>> {
  const credentials = {
    apikey: exchange.dependencies.projectKey,
    authorization: `Bearer ${accessToken}`,
    accept: BYTES,
  };
  const tooLate = new AbortController();
  const timer = setTimeout(() => tooLate.abort(), TIMEOUT_MS);
  let response: Response, bytes: Uint8Array<ArrayBuffer>;
  try {
    const signal = AbortSignal.any([ended, tooLate.signal]);
    response = await send(name, body, credentials, exchange, signal);
    // The runtime reads them by itself: to pass on each part that comes takes more of a function's CPU.
    bytes = new Uint8Array(await response.arrayBuffer());
  } catch {
    throw new ApiError("unavailable");
  } finally {
    clearTimeout(timer);
  }
  if (response.ok) return bytes;
  const text = new TextDecoder().decode(bytes);
  throw errorOf(response.status, text, response.headers.get("retry-after") ?? undefined);
}

const BYTES = "application/octet-stream";

function send(
  name: string,
  body: string | Uint8Array<ArrayBuffer>,
  credentials: Record<string, string>,
  { dependencies, correlationId }: Exchange,
  signal: AbortSignal,
): Promise<Response> {
  return dependencies.fetch(`${dependencies.supabaseUrl}/rest/v1/rpc/${name}`, {
    method: "POST",
    body,
    headers: {
      ...credentials,
      "content-type": "application/json",
      "x-correlation-id": correlationId,
    },
    signal,
  });
}

async function post(
  name: string,
  body: string | Uint8Array<ArrayBuffer>,
  credentials: Record<string, string>,
  exchange: Exchange,
): Promise<string> {
  let status: number, retryAfter: string | null, text: string;
  try {
    const late = AbortSignal.timeout(TIMEOUT_MS);
    const response = await send(name, body, credentials, exchange, late);
    ({ status } = response);
    retryAfter = response.headers.get("retry-after");
    text = await response.text();
  } catch {
    throw new ApiError("unavailable");
  }
  if (status >= 200 && status < 300) return text;
  throw errorOf(status, text, retryAfter ?? undefined);
}

/** The error that an answer of the REST API stands for. */
export function errorOf(status: number, text: string, retryAfter?: string): ApiError {
  const { code, message, details } = parseError(text);
  const origin = { retryAfter, sqlstate: code };
  if (/^PT\d{3}$/.test(code) && isErrorCode(details)) return new ApiError(details, message, origin);
  if (status === 401 || UNAUTHORIZED.test(code)) {
    return new ApiError("unauthorized", undefined, origin);
  }
  if (PASSING_STATUS.has(status) || PASSING.test(code)) {
    return new ApiError("unavailable", undefined, origin);
  }
  return new ApiError("internal", undefined, origin);
}

/** A token that PostgREST refuses, or whose role may not call the function. */
const UNAUTHORIZED = /^(PGRST30[0-3]|42501)$/;

/**
 * States that pass by waiting: no connection, too few resources, a deadlock or a lock not had, a
 * shutdown, a statement timeout (57014), a database that is read-only for now.
 */
const PASSING = /^(PGRST00[0-3]|08...|53...|57...|40...|55P03|25006)$/;
const PASSING_STATUS: ReadonlySet<number> = new Set([429, 502, 503, 504]);

function parseError(text: string): { code: string; message?: string; details?: unknown } {
  try {
    const body: unknown = JSON.parse(text);
    if (!isObject(body)) return { code: "" };
    return {
      code: typeof body.code === "string" ? body.code : "",
      message: typeof body.message === "string" ? body.message : undefined,
      details: body.details,
    };
  } catch {
    return { code: "" };
  }
}
