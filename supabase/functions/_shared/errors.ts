import { contract, type ErrorCode } from "./contract.ts";

const RETRY_AFTER_SECONDS = "1";

/** A failed request, as one code of the catalogue. */
export class ApiError extends Error {
  readonly code: ErrorCode;
  /** Seconds or a date, as in the header of that name. */
  readonly retryAfter: string;
  /** What PostgreSQL called the failure, when it said so. */
  readonly sqlstate: string | undefined;

  constructor(
    code: ErrorCode,
    message: string = contract.errors[code].message,
    { retryAfter = RETRY_AFTER_SECONDS, sqlstate }: { retryAfter?: string; sqlstate?: string } = {},
  ) {
    super(message);
    this.name = "ApiError";
    this.code = code;
    this.retryAfter = retryAfter;
    this.sqlstate = sqlstate;
  }

  get status(): number {
    return contract.errors[this.code].status;
  }
}

/** The answer for an error: `{code, message, request_id}` with the status of the catalogue. */
export function errorResponse(error: ApiError, requestId: string): Response {
  const headers: Record<string, string> = {};
  if (error.status === 429 || error.status === 503) headers["retry-after"] = error.retryAfter;
  return Response.json(
    { code: error.code, message: error.message, request_id: requestId },
    { status: error.status, headers },
  );
}
