import { contract } from "../_shared/contract.ts";
import type { Refusals } from "./batch.ts";

/** What `ingest_signals` says about a batch, as far as this function looks at it. */
export interface Verdict {
  readonly accepted: number;
  readonly duplicate: number;
  readonly rejected: number;
  readonly items: readonly { readonly index: number; readonly code: string }[];
}

/** The verdict with the reasons of the signals that the database was sent as null. */
export function withReasons(verdict: Verdict, refusals: Refusals): Verdict {
  const items = verdict.items.map((item) => {
    const code = refusals.get(item.index);
    return code === undefined ? item : { ...item, code, message: contract.item_codes[code] };
  });
  return { ...verdict, items };
}
