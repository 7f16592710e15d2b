import { accessTokenOf } from "../_shared/access_token.ts";
import { blameArguments, readArguments } from "../_shared/arguments.ts";
import { endpoint } from "../_shared/endpoint.ts";
import { entityTagOf, isNamed } from "../_shared/entity_tag.ts";
import { ApiError } from "../_shared/errors.ts";
import { callRpc } from "../_shared/rest.ts";
import { lifetimeOf } from "./lifetime.ts";
import { questionAt } from "./questions.ts";

export const handler = endpoint("query-signals", ["GET", "POST"], async (request, exchange) => {
  const accessToken = accessTokenOf(request.headers);
  const question = questionAt(new URL(request.url).pathname);
  if (question === undefined) throw new ApiError("not_found");
  exchange.facts.rpc = question.rpc;
  const asked = await readArguments(request, question.parameters);
  const answer = await callRpc(question.rpc, JSON.stringify(asked), accessToken, exchange)
    .catch(blameArguments);
  const tag = await entityTagOf(answer);
  const headers = {
    etag: tag,
    "cache-control": lifetimeOf(asked, question, exchange.dependencies.now()),
    // A browser keeps one cache for all who sign in with it.
    vary: "authorization",
  };
  if (request.method === "GET" && isNamed(tag, request.headers.get("if-none-match"))) {
    return new Response(null, { status: 304, headers });
  }
  return new Response(answer, { headers: { ...headers, "content-type": "application/json" } });
});
