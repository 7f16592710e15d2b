import type { FoundEvent, StoredSignal } from "./wire.ts";

/** Which signals a reader wants: all that meet every part that is given. */
export interface SignalFilter {
  readonly traders?: readonly string[];
  readonly symbols?: readonly string[];
  readonly timeframes?: readonly string[];
  readonly actions?: readonly string[];
  readonly minConfidence?: number;
}

/** As many values as the service takes for one part. */
const MOST_VALUES = 100;

/** Throw a RangeError for what could only be a mistake, as an empty list, which matches nothing. */
export function checkFilter(filter: SignalFilter): void {
  for (const name of ["traders", "symbols", "timeframes", "actions"] as const) {
    const count = filter[name]?.length;
    if (count === 0) {
      throw new RangeError(`Cannot filter by no ${name}: leave ${name} out to accept any.`);
    }
    if (count !== undefined && count > MOST_VALUES) {
      throw new RangeError(`Cannot filter by ${count} ${name}: at most ${MOST_VALUES}.`);
    }
  }
  const { minConfidence } = filter;
  if (minConfidence !== undefined && !(minConfidence >= 0 && minConfidence <= 1)) {
    throw new RangeError(`Cannot filter by minConfidence ${minConfidence}: it is from 0 to 1.`);
  }
}

/** What the database would say: whether a signal belongs to the answer. */
export function matcherOf(filter: SignalFilter): (signal: StoredSignal) => boolean {
  const accepts = (values: readonly string[] | undefined, isUuid = false) => {
    if (values === undefined) return () => true;
    const set = new Set(isUuid ? values.map((value) => value.toLowerCase()) : values);
    return (value: string) => set.has(value);
  };
  const trader = accepts(filter.traders, true);
  const symbol = accepts(filter.symbols);
  const timeframe = accepts(filter.timeframes);
  const action = accepts(filter.actions);
  const { minConfidence = 0 } = filter;
  return (signal) =>
    trader(signal.trader_id) && symbol(signal.symbol) && timeframe(signal.timeframe) &&
    action(signal.action) && signal.confidence >= minConfidence;
}

/** Whether the signal itself is needed to tell if an event is of a wanted one. */
export function needsSignal({ actions, minConfidence }: SignalFilter): boolean {
  return actions !== undefined || minConfidence !== undefined;
}

/**
 * What the database would say of an event; null when its signal has to be seen. An expiry belongs
 * to every filter: it names signals of all kinds, by seq.
 */
export function eventMatcherOf(filter: SignalFilter): (event: FoundEvent) => boolean | null {
  const matches = matcherOf(filter);
  const { traders, symbols, timeframes } = filter;
  const wants = (values: readonly string[] | undefined, value: string | null) =>
    values?.some((each) => each === value) ?? true;
  const lowerTraders = traders?.map((trader) => trader.toLowerCase());
  return (event) => {
    if (event.signal) return matches(event.signal);
    if (event.expired_seqs !== null && event.expired_seqs !== undefined) return true;
    const isAboutIt = wants(lowerTraders, event.trader_id) && wants(symbols, event.symbol) &&
      wants(timeframes, event.timeframe);
    return isAboutIt && needsSignal(filter) ? null : isAboutIt;
  };
}

/** The parameters of `query_signals` for this filter; JSON leaves out what is not given. */
export function parametersOf(filter: SignalFilter): Record<string, unknown> {
  const { traders, symbols, timeframes, actions, minConfidence } = filter;
  return { traders, symbols, timeframes, actions, min_confidence: minConfidence };
}
