import { contract } from "./contract.ts";
import { ApiError } from "./errors.ts";
import { parseJson, readBody } from "./read_body.ts";
import { isObject } from "./signal.ts";
import { isTimestamp } from "./timestamp.ts";

/** The arguments of a database function that the caller gave, with the types it takes. */
export type Arguments = Readonly<Record<string, unknown>>;

export interface Parameter {
  readonly accepts: (value: unknown) => boolean;
  /** What is accepted, to follow "must be". */
  readonly expected: string;
  /** The value that a query string's text stands for. */
  readonly parse: (text: string) => unknown;
  readonly isList?: true;
}

export type Parameters = Readonly<Record<string, Parameter>>;

const UUID = new RegExp(contract.patterns.uuid);
const SYMBOL = new RegExp(contract.patterns.symbol);
const { filter_values: MOST_VALUES, price_magnitude: LARGEST_PRICE } = contract.limits;
const LARGEST_SEQ = 9_223_372_036_854_775_807n;
const BODY_BYTES = 65_536;

export const UUIDS = listOf((value) => UUID.test(value), "UUIDs");
export const WORDS = listOf(isWord, "non-empty strings");

export const TIME: Parameter = {
  accepts: isTimestamp,
  expected: 'an ISO 8601 time with Z or an offset ("+" is written %2B in a query string)',
  parse: (text) => text,
};

export const SEQ: Parameter = {
  accepts: isSeq,
  expected: "a whole number, 0 or more",
  parse: (text) => text,
};

export const WORD: Parameter = {
  accepts: (value) => typeof value === "string" && isWord(value),
  expected: "a non-empty string",
  parse: (text) => text,
};

export const FLAG: Parameter = {
  accepts: (value) => typeof value === "boolean",
  expected: "true or false",
  parse: (text) => text === "true" ? true : text === "false" ? false : text,
};

const CONFIDENCE = numberFrom(0, 1);
const PRICE = numberFrom(-LARGEST_PRICE, LARGEST_PRICE);

/** Which signals: what every reader can be asked. */
export const SIGNAL_FILTER = {
  traders: UUIDS,
  symbols: WORDS,
  symbol_prefix: {
    accepts: (value) => typeof value === "string" && SYMBOL.test(value),
    expected: "the 1 to 32 letters that a symbol begins with",
    parse: (text) => text,
  },
  timeframes: WORDS,
  actions: WORDS,
  statuses: WORDS,
  tags: WORDS,
  min_confidence: CONFIDENCE,
  max_confidence: CONFIDENCE,
  min_price: PRICE,
  max_price: PRICE,
  from: TIME,
  to: TIME,
  after_seq: SEQ,
  until_seq: SEQ,
} satisfies Parameters;

/** The arguments in the query string of a GET or the JSON body of a POST. */
export async function readArguments(request: Request, known: Parameters): Promise<Arguments> {
  if (request.method === "GET") return argumentsOfQuery(new URL(request.url).searchParams, known);
  const bytes = await readBody(request, BODY_BYTES, bodyTooLarge);
  return argumentsOf(parseJson(bytes).value, known);
}

/** A data exception of a call that only reads was caused by what it was asked. */
export function blameArguments(error: unknown): never {
  if (!(error instanceof ApiError) || !error.sqlstate?.startsWith("22")) throw error;
  throw new ApiError("invalid_filter", undefined, { sqlstate: error.sqlstate });
}

/** A null is as good as nothing. */
function argumentsOf(body: unknown, known: Parameters): Arguments {
  if (!isObject(body)) {
    throw new ApiError("invalid_request", "Cannot query: the body must be a JSON object.");
  }
  const given = Object.entries(body).filter(([name, value]) => {
    const parameter = parameterNamed(name, known);
    if (value !== null && !parameter.accepts(value)) throw invalidFilter(name, parameter);
    return value !== null;
  });
  return Object.fromEntries(given);
}

/** A list may be repeated, separated by commas, or both. */
function argumentsOfQuery(query: URLSearchParams, known: Parameters): Arguments {
  const names = [...new Set(query.keys())];
  const given = names.map((name) => {
    const { parse, isList } = parameterNamed(name, known);
    const texts = query.getAll(name);
    if (isList) return [name, texts.flatMap((text) => text.split(","))];
    if (texts.length === 1) return [name, parse(texts[0]!)];
    throw new ApiError("invalid_request", `Cannot query: ${name} is given more than once.`);
  });
  return argumentsOf(Object.fromEntries(given), known);
}

function bodyTooLarge(): ApiError {
  return new ApiError(
    "batch_too_large",
    `Cannot read the filter: it is larger than ${BODY_BYTES} bytes; ask with fewer values.`,
  );
}

function parameterNamed(name: string, known: Parameters): Parameter {
  const parameter = Object.hasOwn(known, name) ? known[name] : undefined;
  if (parameter !== undefined) return parameter;
  throw new ApiError(
    "invalid_request",
    `Cannot query: there is no parameter ${JSON.stringify(name.slice(0, 64))}; use ` +
      `${Object.keys(known).join(", ")}.`,
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

export function numberFrom(least: number, most: number): Parameter {
  return {
    accepts: (value) => typeof value === "number" && value >= least && value <= most,
    expected: `a number from ${least} to ${most}`,
    parse: numberOf,
  };
}

export function integerFrom(least: number, most: number): Parameter {
  return {
    accepts: (value) => Number.isInteger(value) && Number(value) >= least && Number(value) <= most,
    expected: `a whole number from ${least} to ${most}`,
    parse: numberOf,
  };
}

/** One of these words. */
export function oneOf(...words: readonly string[]): Parameter {
  return {
    accepts: (value) => typeof value === "string" && words.includes(value),
    expected: words.length < 2
      ? words.join()
      : `${words.slice(0, -1).join(", ")} or ${words.at(-1)}`,
    parse: (text) => text,
  };
}

function isWord(value: string): boolean {
  return value !== "" && isText(value);
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
