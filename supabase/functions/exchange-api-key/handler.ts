import { contract } from "../_shared/contract.ts";
import { endpoint, type Handler } from "../_shared/endpoint.ts";
import { ApiError } from "../_shared/errors.ts";
import { parseJson, readBody } from "../_shared/read_body.ts";
import { callRpcAsService } from "../_shared/rest.ts";
import { isObject } from "../_shared/signal.ts";
import type { TokenSigner } from "./token_signer.ts";

/** What this function needs beside the dependencies of all. */
export interface Issuer {
  readonly signer: TokenSigner;
  /** The project's secret key: it alone may exchange keys in the database. */
  readonly secretKey: string;
  /** Seconds since 1970. */
  readonly now: () => number;
}

/** What the database lets a token say. */
interface Grant {
  readonly account_id: string;
  readonly key_id: string;
  readonly scope: string;
  readonly expires_in: number;
}

const API_KEY = new RegExp(contract.patterns.api_key);
const LARGEST_BODY = 1024;

/** Exchange an API key for a short-lived access token of its account, with the key's scopes. */
export function exchangeApiKey({ signer, secretKey, now }: Issuer): Handler {
  return endpoint("exchange-api-key", ["POST"], async (request, exchange) => {
    const bytes = await readBody(request, LARGEST_BODY, notAKey);
    const apiKey = apiKeyOf(parseJson(bytes).value);
    const asked = JSON.stringify({ key_hash: await sha256(apiKey) });
    const answer = await callRpcAsService("exchange_api_key", asked, secretKey, exchange);
    const grant: Grant = JSON.parse(answer);
    exchange.facts.api_key_id = grant.key_id;

    const issuedAt = Math.floor(now());
    const expiresAt = issuedAt + grant.expires_in;
    const issuer = `${exchange.dependencies.supabaseUrl}/auth/v1`;
    const accessToken = await signer.sign(claimsOf(grant, issuer, issuedAt, expiresAt));
    return Response.json(
      {
        access_token: accessToken,
        token_type: "bearer",
        expires_in: grant.expires_in,
        expires_at: expiresAt,
        scope: grant.scope,
        account_id: grant.account_id,
        api_key_id: grant.key_id,
      },
      { headers: { "cache-control": "no-store" } },
    );
  });
}

function claimsOf(grant: Grant, issuer: string, issuedAt: number, expiresAt: number): object {
  return {
    iss: issuer,
    sub: grant.account_id,
    aud: "authenticated",
    role: "authenticated",
    iat: issuedAt,
    exp: expiresAt,
    scope: grant.scope,
    api_key_id: grant.key_id,
    // No session has the id of a key. So Auth refuses the token, which else could change the user's
    // password and e-mail.
    session_id: grant.key_id,
  };
}

function apiKeyOf(body: unknown): string {
  if (!isObject(body) || typeof body.api_key !== "string" || Object.keys(body).length !== 1) {
    throw notAKey();
  }
  if (!API_KEY.test(body.api_key)) throw new ApiError("invalid_api_key");
  return body.api_key;
}

/** Never quotes what was sent: it may be a key in the wrong place. */
function notAKey(): ApiError {
  return new ApiError(
    "invalid_request",
    'Cannot exchange the key: send {"api_key": the key} and nothing else.',
  );
}

/** In hex. The database knows keys by this alone, so a key is in no statement and no log of it. */
async function sha256(text: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
