/** Questions to the service over HTTP: pages of signals and events, and where the account is. */

import type { AccessToken } from "./access_token.ts";
import { type SeqQuery, smaller } from "./coverage.ts";
import { needsSignal, parametersOf, type SignalFilter } from "./filter.ts";
import { unlessAborted } from "./waiting.ts";
import { type EventPage, eventPageOf, type Head, headOf, isObject } from "./wire.ts";
import { type Page, pageOf } from "./wire.ts";

/** The service refused a question, and would again. */
export class ServiceError extends Error {
  override readonly name = "ServiceError";
  readonly status: number;
  /** The code of docs/error_codes.md. */
  readonly code: string;

  constructor(status: number, code: string, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** A question was not answered, which may pass; `retryAfterMs` is the least wait. */
export class UnansweredError extends Error {
  override readonly name = "UnansweredError";
  readonly retryAfterMs: number;

  constructor(message: string, retryAfterMs = 0) {
    super(message);
    this.retryAfterMs = retryAfterMs;
  }
}

export interface ServiceOptions {
  readonly url: string;
  readonly key: string;
  readonly accessToken: AccessToken;
  readonly fetch: typeof fetch;
}

/** A page that has not come by then is asked for again, half of it and with twice the time. */
const PAGE_MS = 5000;
/** An answer that was lost on its way is waited for no longer. */
const LONGEST_PAGE_MS = 10_000;
/** A check is asked anew after so long; sooner would only add to what a busy service has to do. */
const HEAD_MS = 4000;
const LONGEST_RETRY_AFTER_MS = 30_000;

export class Service {
  readonly #options: ServiceOptions;

  constructor(options: ServiceOptions) {
    this.#options = options;
  }

  /** The answer to a query that has gone `unanswered` so often. */
  page(
    filter: SignalFilter,
    query: SeqQuery,
    unanswered: number,
    signal: AbortSignal,
  ): Promise<Page> {
    const parameters = {
      ...parametersOf(filter),
      after_seq: query.afterSeq,
      page_size: smaller(query, unanswered).pageSize,
      sort: "seq",
    };
    const withinMs = pageMs(unanswered);
    return this.#ask("/functions/v1/query-signals", parameters, pageOf, withinMs, signal);
  }

  /** The same for events. */
  eventPage(
    filter: SignalFilter,
    query: SeqQuery,
    unanswered: number,
    signal: AbortSignal,
  ): Promise<EventPage> {
    const parameters = {
      after_seq: query.afterSeq,
      page_size: smaller(query, unanswered).pageSize,
      with_signals: needsSignal(filter),
    };
    const withinMs = pageMs(unanswered);
    return this.#ask("/rest/v1/rpc/query_events", parameters, eventPageOf, withinMs, signal);
  }

  head(signal: AbortSignal): Promise<Head> {
    return this.#ask("/rest/v1/rpc/account_head", {}, headOf, HEAD_MS, signal);
  }

  async #ask<T>(
    path: string,
    parameters: object,
    read: (value: unknown) => T,
    withinMs: number,
    signal: AbortSignal,
  ): Promise<T> {
    const within = AbortSignal.any([signal, AbortSignal.timeout(withinMs)]);
    let response = await this.#post(path, parameters, within, false);
    if (response.status === 401) response = await this.#post(path, parameters, within, true);
    const answer = parsed(await response.text().catch(unanswered(path)));
    if (!response.ok) throw errorOf(path, response, answer);
    try {
      return read(answer);
    } catch (error) {
      throw new UnansweredError(String(error)); // The page of a proxy, say.
    }
  }

  async #post(path: string, parameters: object, signal: AbortSignal, refresh: boolean) {
    const { url, key, accessToken, fetch } = this.#options;
    const token = await unlessAborted(accessToken({ refresh }), signal)
      .catch(unanswered("a token"));
    return await fetch(url + path, {
      method: "POST",
      headers: {
        apikey: key,
        authorization: `Bearer ${token}`,
        "content-type": "application/json",
      },
      body: JSON.stringify(parameters),
      signal,
    }).catch(unanswered(path));
  }
}

function pageMs(unanswered: number): number {
  return Math.min(PAGE_MS * (1 + unanswered), LONGEST_PAGE_MS);
}

function unanswered(what: string): (error: unknown) => never {
  return (error) => {
    throw new UnansweredError(`Cannot get ${what}: ${error}`);
  };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function errorOf(path: string, response: Response, answer: unknown): Error {
  const { status } = response;
  const { code, message } = isObject(answer) ? answer : {};
  const told = `Cannot get ${path}: ${status} ${typeof message === "string" ? message : ""}`;
  if (status === 408 || status === 429 || status >= 500) {
    const seconds = Number(response.headers.get("retry-after")) || 0;
    return new UnansweredError(told, Math.min(seconds * 1000, LONGEST_RETRY_AFTER_MS));
  }
  return new ServiceError(status, typeof code === "string" ? code : "", told);
}
