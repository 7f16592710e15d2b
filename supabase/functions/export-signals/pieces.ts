/** `after` < seq <= `until`. */
export interface SeqRange {
  readonly after: number;
  readonly until: number;
}

export interface Piece extends SeqRange {
  readonly isFirst: boolean;
}

/** Cut a range into pieces of so many seqs; the first is there even if it is empty. */
export function piecesOf({ after, until }: SeqRange, size: number): Piece[] {
  const pieces = [];
  for (let start = after; start < until || start === after; start += size) {
    pieces.push({ after: start, until: Math.min(start + size, until), isFirst: start === after });
  }
  return pieces;
}
