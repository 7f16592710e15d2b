import type { Piece } from "./pieces.ts";

type Bytes = Uint8Array<ArrayBuffer>;
type Open = (piece: Piece) => Promise<ReadableStream<Bytes>>;

/** How many pieces the database makes while one is sent. */
const AHEAD = 2;

/**
 * The bytes of all pieces, one after the other, then `end`. While one is sent, the next are made.
 *
 * Rejects when the first piece cannot be opened. A later failure breaks the stream off, so whoever
 * reads sees that it is not whole. `stop` is aborted when nobody reads any more.
 */
export async function joined(
  pieces: readonly Piece[],
  open: Open,
  stop: AbortController,
  end?: Bytes,
): Promise<ReadableStream<Bytes>> {
  const first = await open(pieces[0]!);
  return ReadableStream.from(bytesOf(first, pieces.slice(1), open, stop, end));
}

async function* bytesOf(
  first: ReadableStream<Bytes>,
  rest: readonly Piece[],
  open: Open,
  stop: AbortController,
  end?: Bytes,
): AsyncGenerator<Bytes> {
  const left = [...rest];
  const ahead: Promise<ReadableStream<Bytes>>[] = [];
  const openNext = () => {
    const piece = left.shift();
    if (piece === undefined) return;
    const opened = open(piece);
    // A failure is met when its turn comes, unless nobody reads that far.
    opened.catch(() => {});
    ahead.push(opened);
  };
  try {
    for (let n = 0; n < AHEAD; n++) openNext();
    yield* first;
    for (let next = ahead.shift(); next !== undefined; next = ahead.shift()) {
      const body = await next;
      openNext();
      yield* body;
    }
    if (end !== undefined) yield end;
  } finally {
    stop.abort();
  }
}
