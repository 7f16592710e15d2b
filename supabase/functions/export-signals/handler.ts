import { accessTokenOf } from "../_shared/access_token.ts";
import {
  type Arguments,
  blameArguments,
  FLAG,
  oneOf,
  type Parameters,
  readArguments,
  SIGNAL_FILTER,
} from "../_shared/arguments.ts";
import { contract } from "../_shared/contract.ts";
import { endpoint } from "../_shared/endpoint.ts";
import { ApiError } from "../_shared/errors.ts";
import type { Exchange } from "../_shared/exchange.ts";
import { callRpc, callRpcForBytes } from "../_shared/rest.ts";
import { joined } from "./joined.ts";
import { type Piece, piecesOf, type SeqRange } from "./pieces.ts";

/** What a browser calls the file, and what it is. */
const FORMATS = {
  csv: "text/csv; charset=utf-8; header=present",
  ndjson: "application/x-ndjson; charset=utf-8",
} as const;

/** A longer answer is sent as it is: packing it would take more than a function's 2 s of CPU. */
const MOST_PACKED_SEQS = 200_000;

const PARAMETERS: Parameters = {
  ...SIGNAL_FILTER,
  format: oneOf(...Object.keys(FORMATS)),
  for_spreadsheets: FLAG,
  with_header: FLAG,
  with_end: FLAG,
};

/** Ends an answer, for who asks for it: no line begins like this, so what lacks it was cut off. */
const END = new TextEncoder().encode("#");

export const handler = endpoint("export-signals", ["GET", "POST"], async (request, exchange) => {
  const accessToken = accessTokenOf(request.headers);
  const { after_seq, until_seq, with_end, ...asked } = await readArguments(request, PARAMETERS);
  const whole = await wholeRange(asked, after_seq, until_seq, accessToken, exchange)
    .catch(blameArguments);
  const after = Number(after_seq ?? whole.after);
  const range = { after, until: Math.min(whole.until, after + contract.limits.export_seqs) };
  const pieces = piecesOf(range, contract.limits.export_piece_seqs);
  const stop = new AbortController();
  const open = ({ after, until, isFirst }: Piece) =>
    callRpcForBytes(
      "export_signals",
      JSON.stringify({
        format: "csv",
        ...asked,
        after_seq: after,
        until_seq: until,
        with_header: isFirst && (asked.with_header ?? true),
      }),
      accessToken,
      exchange,
      stop.signal,
    );
  const end = with_end === true ? END : undefined;
  const body = await joined(pieces, open, stop, end).catch(blameArguments);
  const format = (asked.format ?? "csv") as keyof typeof FORMATS;
  const headers = {
    "content-type": FORMATS[format],
    "content-disposition": `attachment; filename="signals.${format}"`,
    "cache-control": "private, no-store",
    "export-after-seq": String(range.after),
    "export-until-seq": String(range.until),
    "export-end-seq": String(whole.until),
    vary: "accept-encoding",
  };
  if (!isPacked(request, range)) return new Response(body, { headers });
  return new Response(body.pipeThrough(new CompressionStream("gzip")), {
    headers: { ...headers, "content-encoding": "gzip" },
  });
});

/** The seqs to look through: those that were asked for, as far as there are any. */
async function wholeRange(
  { from, to }: Arguments,
  afterSeq: unknown,
  untilSeq: unknown,
  accessToken: string,
  exchange: Exchange,
): Promise<SeqRange> {
  const given = { after: Number(afterSeq ?? 0), until: Number(untilSeq ?? Infinity) };
  if (given.until < given.after) {
    throw new ApiError("invalid_filter", "Cannot export: until_seq is before after_seq.");
  }
  if (untilSeq !== undefined && afterSeq !== undefined) return given;
  const asked = JSON.stringify({ from, to });
  const found = JSON.parse(await callRpc("export_range", asked, accessToken, exchange));
  const after = Math.max(given.after, found.after_seq);
  return { after, until: Math.max(after, Math.min(given.until, found.until_seq)) };
}

function isPacked(request: Request, { after, until }: SeqRange): boolean {
  const accepted = request.headers.get("accept-encoding") ?? "";
  return until - after <= MOST_PACKED_SEQS && /\bgzip\b(?!\s*;\s*q=0(\.0*)?\b)/.test(accepted);
}
