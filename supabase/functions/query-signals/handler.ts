import { accessTokenOf } from "../_shared/access_token.ts";
import {
  blameArguments,
  isText,
  numberOf,
  type Parameters,
  readArguments,
  SEQ,
  SIGNAL_FILTER,
} from "../_shared/arguments.ts";
import { contract } from "../_shared/contract.ts";
import { endpoint } from "../_shared/endpoint.ts";
import { callRpc } from "../_shared/rest.ts";

const { page_size: LARGEST_PAGE } = contract.limits;

const PARAMETERS: Parameters = {
  ...SIGNAL_FILTER,
  after_seq: SEQ,
  sort: {
    accepts: (value) => value === "newest" || value === "seq",
    expected: "newest or seq",
    parse: (text) => text,
  },
  cursor: {
    accepts: (value) => typeof value === "string" && value !== "" && isText(value),
    expected: "the next_cursor of an earlier page",
    parse: (text) => text,
  },
  page_size: {
    accepts: (value) =>
      Number.isInteger(value) && Number(value) >= 1 && Number(value) <= LARGEST_PAGE,
    expected: `a whole number from 1 to ${LARGEST_PAGE}`,
    parse: numberOf,
  },
};

export const handler = endpoint("query-signals", ["GET", "POST"], async (request, exchange) => {
  const accessToken = accessTokenOf(request.headers);
  const asked = await readArguments(request, PARAMETERS);
  const page = await callRpc("query_signals", JSON.stringify(asked), accessToken, exchange)
    .catch(blameArguments);
  return new Response(page, {
    headers: { "content-type": "application/json", "cache-control": "private, no-store" },
  });
});
