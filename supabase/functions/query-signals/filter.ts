import { contract } from "../_shared/contract.ts";
import { ApiError } from "../_shared/errors.ts";
import { isObject } from "../_shared/signal.ts";
import { isTimestamp } from "../_shared/timestamp.ts";

/** The arguments of `query_signals` that the caller gave, with the types it takes. */
export type Filter = Readonly<Record<string, unknown>>;

interface Parameter {
  readonly accepts: (value: unknown) => boolean;
  /** What is accepted, to follow "must be". */
  readonly expected: string;
  /** The value that a query string's text stands for. */
  readonly parse: (text: string) => unknown;
  readonly isList?: true;
}

const UUID = new RegExp(contract.patterns.uuid);
const { filter_values: MOST_VALUES, page_size: LARGEST_PAGE } = contract.limits;
const LARGEST_SEQ = 9_223_372_036_854_775_807n;

const UUIDS = listOf((value) => UUID.test(value), "UUIDs");
const WORDS = listOf((value) => value !== "" && isText(value), "non-empty strings");
const TIME: Parameter = {
  accepts: isTimestamp,
  expected: 'an ISO 8601 time with Z or an offset ("+" is written %2B in a query string)',
  parse: (text) => text,
};

const PARAMETERS: Readonly<Record<string, Parameter>> = {
  traders: UUIDS,
  symbols: WORDS,
  timeframes: WORDS,
  actions: WORDS,
  min_confidence: {
    accepts: (value) => typeof value === "number" && value >= 0 && value <= 1,
    expected: "a number from 0 to 1",
    parse: numberOf,
  },
  from: TIME,
  to: TIME,
  after_seq: {
    accepts: isSeq,
    expected: "a whole number, 0 or more",
    parse: (text) => text,
  },
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

/** The filter of a JSON body. A null is as good as nothing. */
export function filterOf(body: unknown): Filter {
  if (!isObject(body)) {
    throw new ApiError("invalid_request", "Cannot query: the body must be a JSON object.");
  }
  const given = Object.entries(body).filter(([name, value]) => {
    const parameter = parameterNamed(name);
    if (value !== null && !parameter.accepts(value)) throw invalidFilter(name, parameter);
    return value !== null;
  });
  return Object.fromEntries(given);
}

/** The filter of a query string. A list may be repeated, separated by commas, or both. */
export function filterOfQuery(query: URLSearchParams): Filter {
  const names = [...new Set(query.keys())];
  return filterOf(Object.fromEntries(names.map((name) => {
    const { parse, isList } = parameterNamed(name);
    const texts = query.getAll(name);
    if (isList) return [name, texts.flatMap((text) => text.split(","))];
    if (texts.length === 1) return [name, parse(texts[0]!)];
    throw new ApiError("invalid_request", `Cannot query: ${name} is given more than once.`);
  })));
}

function parameterNamed(name: string): Parameter {
  const parameter = Object.hasOwn(PARAMETERS, name) ? PARAMETERS[name] : undefined;
  if (parameter !== undefined) return parameter;
  const known = Object.keys(PARAMETERS).join(", ");
  throw new ApiError(
    "invalid_request",
    `Cannot query: there is no parameter ${JSON.stringify(name.slice(0, 64))}; use ${known}.`,
  );
}

function invalidFilter(name: string, { expected }: Parameter): ApiError {
  return new ApiError("invalid_filter", `Cannot query: ${name} must be ${expected}.`);
}

function listOf(accepts: (value: string) => boolean, what: string): Parameter {
  return {
    accepts: (values) =>
      Array.isArray(values) && values.length <= MOST_VALUES &&
      values.every((value) => typeof value === "string" && accepts(value)),
    expected: `a list of at most ${MOST_VALUES} ${what}`,
    parse: (text) => text,
    isList: true,
  };
}

/** Whether PostgreSQL can hold the text. */
function isText(value: string): boolean {
  return value.isWellFormed() && !value.includes("\0");
}

/** A bigint is written as text where a double cannot hold it. */
function isSeq(value: unknown): boolean {
  if (typeof value === "number") return Number.isSafeInteger(value) && value >= 0;
  return typeof value === "string" && /^\d{1,19}$/.test(value) && BigInt(value) <= LARGEST_SEQ;
}

function numberOf(text: string): number {
  return /^-?\d+(\.\d+)?([eE][-+]?\d+)?$/.test(text) ? Number(text) : NaN;
}
