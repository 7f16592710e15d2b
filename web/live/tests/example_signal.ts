import type { StoredSignal } from "../src/wire.ts";

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
