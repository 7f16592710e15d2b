import type { SignalEvent, StoredSignal } from "../src/wire.ts";

/** A signal of the one trader of an account; its place is all that tells it from the others. */
export function signalAt(seq: number): StoredSignal {
  return {
    signal_id: `00000000-0000-8000-8000-${String(seq).padStart(12, "0")}`,
    seq,
    trader_id: "00000000-0000-4000-8000-000000000007",
    symbol: "ES",
    timeframe: "1m",
    generated_at: "2026-01-05T00:00:00+00:00",
    action: "enter_long",
    confidence: 0.5,
    price: 1640.25,
    stop_loss: null,
    take_profit: null,
    valid_until: null,
    metadata: null,
    status: "generated",
    outcome: null,
  };
}

/** The event `seq` of one signal, or of the first to the last that expired together. */
export function eventAt(seq: number, of: number | readonly [number, number]): SignalEvent {
  const isExpiry = typeof of !== "number";
  const { signal_id, trader_id, symbol, timeframe, generated_at } = signalAt(isExpiry ? of[0] : of);
  const nobody = {
    signal_id: null,
    trader_id: null,
    symbol: null,
    timeframe: null,
    generated_at: null,
  };
  return {
    ...(isExpiry ? nobody : { signal_id, trader_id, symbol, timeframe, generated_at }),
    seq,
    status: isExpiry ? "expired" : "analyzed",
    signal_seq: isExpiry ? of[0] : of,
    occurred_at: "2026-01-05T00:01:00+00:00",
    received_at: "2026-01-05T00:01:00+00:00",
    entry_price: null,
    exit_price: null,
    close_reason: null,
    return: null,
    fees: null,
    reason: null,
    expired_seqs: isExpiry ? [of] : null,
  };
}
