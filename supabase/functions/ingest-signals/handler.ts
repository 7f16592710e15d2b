import { accessTokenOf } from "../_shared/access_token.ts";
import { contract } from "../_shared/contract.ts";
import { endpoint } from "../_shared/endpoint.ts";
import { ApiError } from "../_shared/errors.ts";
import type { Exchange } from "../_shared/exchange.ts";
import { parseJson, readBody } from "../_shared/read_body.ts";
import { callRpc } from "../_shared/rest.ts";
import {
  batchOf,
  type Refusals,
  refusalsOf,
  requestIdOf,
  unstorableSignals,
  withoutRefused,
} from "./batch.ts";
import { type Verdict, withReasons } from "./verdict.ts";

export const handler = endpoint("ingest-signals", ["POST"], async (request, exchange) => {
  const accessToken = accessTokenOf(request.headers);
  const bytes = await readBody(request, contract.limits.batch_bytes);
  exchange.facts.body_bytes = bytes.length;
  const { text, value } = parseJson(bytes);
  exchange.requestId = requestIdOf(value) ?? exchange.requestId;
  const batch = batchOf(value);
  exchange.facts.signals = batch.signals.length;

  const refusals = refusalsOf(batch);
  const store = (body: string | Uint8Array<ArrayBuffer>) =>
    ingest(body, refusals, accessToken, exchange);
  try {
    return await store(refusals.size === 0 ? bytes : withoutRefused(text, batch, refusals));
  } catch (error) {
    if (!isUnreadable(error)) throw error;
  }
  for (const [index, code] of unstorableSignals(text)) {
    if (!refusals.has(index)) refusals.set(index, code);
  }
  return await store(withoutRefused(text, batch, refusals)).catch(refuseUnreadable);
});

async function ingest(
  body: string | Uint8Array<ArrayBuffer>,
  refusals: Refusals,
  accessToken: string,
  exchange: Exchange,
): Promise<Response> {
  const text = await callRpc("ingest_signals", body, accessToken, exchange);
  const verdict: Verdict = JSON.parse(text);
  const { accepted, duplicate, rejected } = verdict;
  Object.assign(exchange.facts, { accepted, duplicate, rejected });
  const answer = refusals.size === 0 ? text : JSON.stringify(withReasons(verdict, refusals));
  return new Response(answer, { headers: { "content-type": "application/json" } });
}

/**
 * What PostgREST (PGRST102) and PostgreSQL say of JSON text that they cannot hold. They refuse all
 * of it, before anything is stored.
 */
const UNREADABLE: ReadonlySet<string> = new Set(["PGRST102", "22P02", "22P05", "22003", "54001"]);

function isUnreadable(error: unknown): error is ApiError {
  return error instanceof ApiError && UNREADABLE.has(error.sqlstate ?? "");
}

/** Sending the same values again cannot help, so this must not look like a passing failure. */
function refuseUnreadable(error: unknown): never {
  if (!isUnreadable(error)) throw error;
  throw new ApiError(
    "invalid_request",
    "Cannot store the batch: the database cannot hold one of its values; send the signals apart.",
    { sqlstate: error.sqlstate },
  );
}
