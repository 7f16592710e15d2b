import { type Span, tokensOf } from "./json_text.ts";

/** Far deeper than anyone nests metadata, and well before parsers on the way give up. */
const DEEPEST = 512;

/** PostgreSQL's numeric: digits after the point, the largest power of ten, and exponent to read. */
const MOST_DECIMALS = 16_383;
const LARGEST_POWER = 131_071;
const LARGEST_EXPONENT = 1_073_741_823;

/**
 * Whether this JSON text holds something that jsonb cannot: a NUL, half of a surrogate pair, a
 * number beyond numeric, or nesting without end. One such value, even under a repeated name that
 * a later one overrides, makes PostgreSQL refuse the whole document that holds it.
 */
export function isUnstorable(text: string, span: Span): boolean {
  for (const { kind, start, end, depth } of tokensOf(text, span)) {
    if (depth > DEEPEST) return true;
    if (kind === "string" && isUnstorableString(text.slice(start, end))) return true;
    if (kind === "number" && isUnstorableNumber(text.slice(start, end))) return true;
  }
  return false;
}

function isUnstorableString(literal: string): boolean {
  if (!literal.includes("\\u")) return false;
  const value: string = JSON.parse(literal);
  return value.includes("\0") || !value.isWellFormed();
}

function isUnstorableNumber(literal: string): boolean {
  const [mantissa = "", exponentText = "0"] = literal.replace(/^-/, "").toLowerCase().split("e");
  const [whole = "", decimals = ""] = mantissa.split(".");
  const exponent = Number(exponentText);
  if (decimals.length - exponent > MOST_DECIMALS) return true;
  const digits = whole + decimals;
  const leadingZeros = digits.length - digits.replace(/^0+/, "").length;
  if (leadingZeros === digits.length) return exponent > LARGEST_EXPONENT;
  return whole.length - 1 - leadingZeros + exponent > LARGEST_POWER;
}
