/** Where one JSON value is in a text: `text.slice(start, end)`. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/** One name and value of an object; the name is decoded. */
export interface Member extends Span {
  readonly key: string;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;

/**
 * The members of the object that `span` holds, in order, repeated names included.
 *
 * The text must be valid JSON (`JSON.parse` took it). Values are found, not parsed, so that they
 * can be passed on exactly as they were written.
 */
export function membersOf(text: string, span: Span): Member[] {
  const members: Member[] = [];
  let index = skipSpace(text, skipSpace(text, span.start) + 1);
  while (text[index] !== "}") {
    const keyEnd = endOfString(text, index);
    const key: string = JSON.parse(text.slice(index, keyEnd));
    const start = skipSpace(text, skipSpace(text, keyEnd) + 1);
    const end = endOfValue(text, start);
    members.push({ key, start, end });
    index = skipSeparator(text, end);
  }
  return members;
}

/** The elements of the array that `span` holds; the text must be valid JSON. */
export function elementsOf(text: string, span: Span): Span[] {
  const elements: Span[] = [];
  let index = skipSpace(text, skipSpace(text, span.start) + 1);
  while (text[index] !== "]") {
    const end = endOfValue(text, index);
    elements.push({ start: index, end });
    index = skipSeparator(text, end);
  }
  return elements;
}

/** A string (a name or a value), a number, or the bracket that opens an object or an array. */
export interface Token extends Span {
  readonly kind: "string" | "number" | "open";
  /** How many brackets are open here, its own included. */
  readonly depth: number;
}

/** What a value is made of, without true, false and null; the text must be valid JSON. */
export function* tokensOf(text: string, span: Span): Generator<Token> {
  let depth = 0;
  for (let index = span.start; index < span.end;) {
    const unit = text[index]!;
    let token: Token | undefined;
    if (unit === '"') {
      token = { kind: "string", start: index, end: endOfString(text, index), depth };
    } else if (unit === "-" || (unit >= "0" && unit <= "9")) {
      token = { kind: "number", start: index, end: endOfPlain(text, index), depth };
    } else if (unit === "{" || unit === "[") {
      token = { kind: "open", start: index, end: index + 1, depth: ++depth };
    } else if (unit === "}" || unit === "]") {
      depth--;
    }
    if (token !== undefined) yield token;
    index = token?.end ?? index + 1;
  }
}

function endOfValue(text: string, start: number): number {
  const first = text[start];
  if (first === '"') return endOfString(text, start);
  if (first === "{" || first === "[") return endOfBrackets(text, start);
  return endOfPlain(text, start);
}

function endOfBrackets(text: string, start: number): number {
  let depth = 0;
  for (let index = start;;) {
    const unit = text[index];
    if (unit === '"') {
      index = endOfString(text, index);
      continue;
    }
    index++;
    if (unit === "{" || unit === "[") depth++;
    if ((unit === "}" || unit === "]") && --depth === 0) return index;
  }
}

function endOfString(text: string, start: number): number {
  for (let index = start + 1;; index++) {
    const unit = text.charCodeAt(index);
    if (unit === QUOTE) return index + 1;
    if (unit === BACKSLASH) index++;
  }
}

/** The end of a number, true, false or null. */
function endOfPlain(text: string, start: number): number {
  let index = start;
  while (index < text.length && !" \t\n\r,]}".includes(text[index]!)) index++;
  return index;
}

function skipSpace(text: string, start: number): number {
  let index = start;
  while (" \t\n\r".includes(text[index]!)) index++;
  return index;
}

function skipSeparator(text: string, start: number): number {
  const index = skipSpace(text, start);
  return text[index] === "," ? skipSpace(text, index + 1) : index;
}
