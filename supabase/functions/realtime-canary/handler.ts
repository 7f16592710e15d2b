import { endpoint, type Handler } from "../_shared/endpoint.ts";
import { ApiError } from "../_shared/errors.ts";
import { callRpcAsService } from "../_shared/rest.ts";
import { fly, NotDelivered } from "./flight.ts";

/** What this function needs beside the dependencies of all. */
export interface Aviary {
  /** The project's secret keys: whoever calls shows one of them. */
  readonly secretKeys: readonly string[];
  /** The token of service_role, which the server takes in a frame; null in a project without. */
  readonly serviceToken: string | null;
  /** How long connecting, joining and delivery may take together. */
  readonly timeoutMs: number;
}

/** Send a broadcast through the database and Realtime, and keep how long it took to come back. */
export function realtimeCanary({ secretKeys, serviceToken, timeoutMs }: Aviary): Handler {
  return endpoint("realtime-canary", ["POST"], async (request, exchange) => {
    const key = await knownKey(request.headers, secretKeys);
    const runId = exchange.dependencies.newId();
    const { supabaseUrl, projectKey, milliseconds } = exchange.dependencies;
    const call = (name: string, body: object) =>
      callRpcAsService(name, JSON.stringify({ run_id: runId, ...body }), key, exchange);
    const attempt = (socketKey: string, accessToken: string | null) => {
      const socketUrl = `${supabaseUrl.replace(/^http/, "ws")}/realtime/v1/websocket` +
        `?apikey=${encodeURIComponent(socketKey)}&vsn=1.0.0`;
      const send = () => call("send_canary", {});
      const topic = `canary:${runId}`;
      return outcomeOf(fly({ topic, send, socketUrl, accessToken, milliseconds, timeoutMs }));
    };

    // A URL is written to logs on its way. The secret is in it only where there is no token that the
    // server takes: it takes no key of the new kind in a frame, and a WebSocket has no headers here.
    const told = serviceToken === null ? null : await attempt(projectKey, serviceToken);
    const isTold = told !== null && !TOKEN_REFUSED.test(told.error ?? "");
    const outcome = isTold ? told : await attempt(key, null);
    await call("record_canary", outcome);
    if (outcome.error === null) return Response.json({ run_id: runId, ...outcome });
    throw new ApiError("unavailable", `The broadcast was not received: ${outcome.error}.`);
  });
}

/** The legacy keys of the project are switched off. */
const TOKEN_REFUSED = /jwt/i;

interface Outcome {
  readonly milliseconds: number | null;
  readonly error: string | null;
}

async function outcomeOf(flight: Promise<number>): Promise<Outcome> {
  try {
    return { milliseconds: await flight, error: null };
  } catch (failure) {
    if (failure instanceof NotDelivered) return { milliseconds: null, error: failure.message };
    if (failure instanceof ApiError) {
      return { milliseconds: null, error: `not sent: ${failure.code}` };
    }
    throw failure;
  }
}

/** The secret key that the caller shows. Hashes are compared, so that the time tells nothing. */
async function knownKey(headers: Headers, secretKeys: readonly string[]): Promise<string> {
  const bearer = headers.get("authorization")?.replace(/^Bearer +/i, "");
  for (const shown of [headers.get("apikey"), bearer]) {
    if (!shown) continue;
    const hash = await sha256(shown);
    for (const key of secretKeys) if (await sha256(key) === hash) return key;
  }
  throw new ApiError("unauthorized", "The project's secret key is required in the header apikey.");
}

async function sha256(text: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
