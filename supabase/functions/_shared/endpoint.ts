import { correlationIdOf } from "./correlation_id.ts";
import { CORS_HEADERS, preflightResponse } from "./cors.ts";
import type { Dependencies } from "./dependencies.ts";
import { ApiError, errorResponse } from "./errors.ts";
import type { Exchange } from "./exchange.ts";
import { failureOf, type LogRecord } from "./log.ts";

export type Handler = (request: Request, dependencies: Dependencies) => Promise<Response>;

/**
 * Make a handler from the work that is its own.
 *
 * Around the work: CORS, the method, the correlation id, errors as the catalogue has them, and
 * one line of log.
 */
export function endpoint(
  name: string,
  methods: readonly string[],
  work: (request: Request, exchange: Exchange) => Promise<Response>,
): Handler {
  return async (request, dependencies) => {
    if (request.method === "OPTIONS") return preflightResponse(methods);
    const started = dependencies.milliseconds();
    const correlationId = correlationIdOf(request.headers, dependencies.newId);
    const exchange: Exchange = { dependencies, correlationId, requestId: correlationId, facts: {} };
    const { response, outcome } = await answer(request, exchange, methods, work);
    for (const [header, value] of Object.entries(CORS_HEADERS)) response.headers.set(header, value);
    response.headers.set("x-correlation-id", correlationId);
    dependencies.log({
      function: name,
      correlation_id: correlationId,
      request_id: exchange.requestId,
      method: request.method,
      status: response.status,
      ms: Math.round((dependencies.milliseconds() - started) * 10) / 10,
      ...outcome,
      ...exchange.facts,
    });
    return response;
  };
}

type Outcome = Pick<LogRecord, "code" | "sqlstate" | "failure">;

async function answer(
  request: Request,
  exchange: Exchange,
  methods: readonly string[],
  work: (request: Request, exchange: Exchange) => Promise<Response>,
): Promise<{ response: Response; outcome: Outcome }> {
  try {
    if (!methods.includes(request.method)) throw new ApiError("method_not_allowed");
    return { response: await work(request, exchange), outcome: {} };
  } catch (thrown) {
    const expected = thrown instanceof ApiError;
    const error = expected ? thrown : new ApiError("internal");
    const response = errorResponse(error, exchange.requestId);
    if (error.code === "method_not_allowed") response.headers.set("allow", methods.join(", "));
    const { code, sqlstate } = error;
    return {
      response,
      outcome: { code, sqlstate, failure: expected ? undefined : failureOf(thrown) },
    };
  }
}
