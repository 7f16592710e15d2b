/** A valid signal for tests, with the given fields in place of its own. */
export function exampleSignal(fields: Readonly<Record<string, unknown>> = {}): object {
  return {
    trader_id: "6f1b7a52-3c0e-4a8b-9d4f-0e6a5b1c2d3e",
    symbol: "BTC-USD",
    timeframe: "15m",
    generated_at: "2026-11-22T10:15:00.123456Z",
    action: "enter_long",
    confidence: 0.83,
    price: 97250.5,
    stop_loss: 96000,
    take_profit: 99500,
    valid_until: "2026-11-22T11:15:00Z",
    metadata: { strategy: "breakout", window: 20 },
    ...fields,
  };
}
