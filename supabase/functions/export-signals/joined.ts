import type { Piece } from "./pieces.ts";

type Bytes = Uint8Array<ArrayBuffer>;
type Get = (piece: Piece) => Promise<Bytes>;

/** How many pieces the database makes while one is sent. */
const AHEAD = 2;

/**
 * The bytes of all pieces, one after the other, then `end`. While one is sent, the next are made:
 * a piece is bounded, and so is what is held of an answer.
 *
 * Rejects when the first piece cannot be had. A later failure breaks the stream off, so whoever
 * reads sees that it is not whole. `stop` is aborted when nobody reads any more.
 */
export async function joined(
  pieces: readonly Piece[],
  get: Get,
  stop: AbortController,
  end?: Bytes,
): Promise<ReadableStream<Bytes>> {
  const first = await get(pieces[0]!);
  return ReadableStream.from(bytesOf(first, pieces.slice(1), get, stop, end));
}

async function* bytesOf(
  first: Bytes,
  rest: readonly Piece[],
  get: Get,
  stop: AbortController,
  end?: Bytes,
): AsyncGenerator<Bytes> {
  const left = [...rest];
  const ahead: Promise<Bytes>[] = [];
  const getNext = () => {
    const piece = left.shift();
    if (piece === undefined) return;
    const got = get(piece);
    // A failure is met when its turn comes, unless nobody reads that far.
    got.catch(() => {});
    ahead.push(got);
  };
  try {
    for (let n = 0; n < AHEAD; n++) getNext();
    if (first.length > 0) yield first;
    for (let next = ahead.shift(); next !== undefined; next = ahead.shift()) {
      const bytes = await next;
      getNext();
      if (bytes.length > 0) yield bytes;
    }
    if (end !== undefined) yield end;
  } finally {
    stop.abort();
  }
}
