import { accessTokenOf } from "../_shared/access_token.ts";
import { endpoint } from "../_shared/endpoint.ts";
import { ApiError } from "../_shared/errors.ts";
import { parseJson, readBody } from "../_shared/read_body.ts";
import { callRpc } from "../_shared/rest.ts";
import { type Filter, filterOf, filterOfQuery } from "./filter.ts";

const BODY_BYTES = 65_536;

export const handler = endpoint("query-signals", ["GET", "POST"], async (request, exchange) => {
  const accessToken = accessTokenOf(request.headers);
  const filter = await readFilter(request);
  const page = await callRpc("query_signals", JSON.stringify(filter), accessToken, exchange)
    .catch(blameFilter);
  return new Response(page, {
    headers: { "content-type": "application/json", "cache-control": "private, no-store" },
  });
});

async function readFilter(request: Request): Promise<Filter> {
  if (request.method === "GET") return filterOfQuery(new URL(request.url).searchParams);
  const bytes = await readBody(request, BODY_BYTES, bodyTooLarge);
  return filterOf(parseJson(bytes).value);
}

function bodyTooLarge(): ApiError {
  return new ApiError(
    "batch_too_large",
    `Cannot read the filter: it is larger than ${BODY_BYTES} bytes; ask with fewer values.`,
  );
}

/** A data exception of a call that only reads was caused by what it was asked. */
function blameFilter(error: unknown): never {
  if (!(error instanceof ApiError) || !error.sqlstate?.startsWith("22")) throw error;
  throw new ApiError("invalid_filter", undefined, { sqlstate: error.sqlstate });
}
