import { ApiError } from "../_shared/errors.ts";
import type { Piece } from "./pieces.ts";

type Bytes = Uint8Array<ArrayBuffer>;
type Open = (piece: Piece) => Promise<ReadableStream<Bytes>>;

/** How many pieces the database makes while one is sent. */
const AHEAD = 2;

/**
 * The bytes of all pieces, one after the other, then `end`. While one is sent, the next are made.
 *
 * Rejects when the first piece cannot be had. A later failure breaks the stream off, so whoever
 * reads sees that it is not whole. `stop` is aborted when nobody reads any more.
 */
export async function joined(
  pieces: readonly Piece[],
  open: Open,
  stop: AbortController,
  end?: Bytes,
): Promise<ReadableStream<Bytes>> {
  const get = async (piece: Piece) => await wholeOf(await open(piece));
  const first = await get(pieces[0]!);
  return ReadableStream.from(bytesOf(first, pieces.slice(1), get, stop, end));
}

async function* bytesOf(
  first: Bytes,
  rest: readonly Piece[],
  get: (piece: Piece) => Promise<Bytes>,
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

/**
 * A piece as one part, which the runtime reads by itself: to pass on each part that comes takes more
 * of a function's CPU. A piece is bounded, and so is what is held of an answer: one, and those ahead.
 */
async function wholeOf(stream: ReadableStream<Bytes>): Promise<Bytes> {
  try {
    return new Uint8Array(await new Response(stream).arrayBuffer());
  } catch {
    throw new ApiError("unavailable");
  }
}
