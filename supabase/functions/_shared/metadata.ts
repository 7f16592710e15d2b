import { contract } from "./contract.ts";

/**
 * Whether jsonb may hold this object within the size limit.
 *
 * The size is that of PostgreSQL's text form. Parsing loses how a number was written, so numbers
 * count as the least they can take: what is refused here is refused by the database too, and the
 * database decides the rest.
 */
export function mayBeMetadata(value: object): boolean {
  return spend(value, contract.limits.metadata_bytes) >= 0;
}

const REFUSED = -1;

/**
 * What is left of the budget after this value, or a negative number.
 *
 * Every container pays for its brackets before its content is looked at, so the depth of the
 * recursion is bounded by the budget.
 */
function spend(value: unknown, left: number): number {
  if (typeof value === "string") return spendText(value, left);
  if (typeof value === "number") return left - leastDigits(value);
  if (typeof value === "boolean") return left - (value ? 4 : 5);
  if (value === null) return left - 4;
  return Array.isArray(value) ? spendArray(value, left) : spendObject(value as object, left);
}

function spendArray(values: readonly unknown[], left: number): number {
  left -= bracketsAndCommas(values.length);
  for (const value of values) {
    if (left < 0) return REFUSED;
    left = spend(value, left);
  }
  return left;
}

function spendObject(object: object, left: number): number {
  const entries = Object.entries(object);
  left -= bracketsAndCommas(entries.length) + ": ".length * entries.length;
  for (const [key, value] of entries) {
    if (left < 0) return REFUSED;
    left = spendText(key, left);
    if (left < 0) return REFUSED;
    left = spend(value, left);
  }
  return left;
}

function bracketsAndCommas(count: number): number {
  return 2 + ", ".length * Math.max(count - 1, 0);
}

function spendText(text: string, left: number): number {
  left -= 2 + text.length;
  if (left < 0 || text.includes("\0") || !text.isWellFormed()) return REFUSED;
  for (let index = 0; index < text.length; index++) left -= extraBytes(text.charCodeAt(index));
  return left;
}

/** Bytes beyond the first that a UTF-16 unit takes in the text form; half of a pair takes two. */
function extraBytes(unit: number): number {
  if (unit < 0x20) return isShortEscape(unit) ? 1 : 5;
  if (unit < 0x80) return unit === 0x22 || unit === 0x5c ? 1 : 0;
  if (unit < 0x800) return 1;
  return unit >= 0xd800 && unit <= 0xdfff ? 1 : 2;
}

/** \b \t \n \f \r; the other control characters are written \u00xx. */
function isShortEscape(unit: number): boolean {
  return unit >= 0x08 && unit <= 0x0d && unit !== 0x0b;
}

/**
 * The shortest text of any literal that parses to this number, as far as a double can tell: a
 * literal of 16 or more digits may have been rounded up to one with a digit more.
 */
function leastDigits(value: number): number {
  return Math.min(String(value).length, 16);
}
