import {
  FLAG,
  integerFrom,
  oneOf,
  type Parameter,
  type Parameters,
  SIGNAL_FILTER,
  WORD,
  WORDS,
} from "../_shared/arguments.ts";
import { contract } from "../_shared/contract.ts";

/** What can be asked at one path. */
export interface Question {
  /** The database function that answers it. */
  readonly rpc: string;
  readonly parameters: Parameters;
  /** The answer tells what became of the signals unless `fields` leaves that out. */
  readonly showsStatus?: true;
}

const { traders, symbols, symbol_prefix, timeframes, actions, from, to } = SIGNAL_FILTER;
const { min_confidence, max_confidence } = SIGNAL_FILTER;

const PAGE: Parameters = {
  cursor: { ...WORD, expected: "the next_cursor of an earlier page" },
  page_size: integerFrom(1, contract.limits.page_size),
};

const DURATION: Parameter = {
  accepts: (value) =>
    typeof value === "string" && /^\d{1,9} ?(s|m|h|d|seconds?|minutes?|hours?|days?)$/.test(value),
  expected: "a duration such as 15m, 1h or 1d",
  parse: (text) => text,
};

/** What every time series is asked. */
const SERIES: Parameters = {
  traders,
  symbols,
  timeframes,
  actions,
  min_confidence,
  max_confidence,
  from,
  to,
  by: oneOf("trader", "symbol", "timeframe"),
  top: integerFrom(1, 50),
};
const BUCKETS: Parameters = {
  ...SERIES,
  width: DURATION,
  fill: oneOf("null", "previous", "linear"),
};
const VALUE = oneOf("signals", "net_entries", "confidence", "price");

const QUESTIONS = new Map<string, Question>(Object.entries({
  "": {
    rpc: "query_signals",
    parameters: { ...SIGNAL_FILTER, ...PAGE, sort: oneOf(...contract.sorts), fields: WORDS },
    showsStatus: true,
  },
  count: { rpc: "count_signals", parameters: { ...SIGNAL_FILTER, exact: FLAG } },
  facets: { rpc: "signal_facets", parameters: SIGNAL_FILTER },
  latest: {
    rpc: "latest_signals",
    parameters: { traders, symbols, symbol_prefix, timeframes, actions, from, ...PAGE },
    showsStatus: true,
  },
  "time-buckets": { rpc: "time_buckets", parameters: BUCKETS },
  "rolling-statistics": {
    rpc: "rolling_statistics",
    parameters: {
      ...BUCKETS,
      value: VALUE,
      window: integerFrom(2, 500),
      min_periods: integerFrom(1, 500),
    },
  },
  "correlations": {
    rpc: "correlations",
    parameters: { ...BUCKETS, value: VALUE, max_lag: integerFrom(0, 100) },
  },
  "co-occurrence": { rpc: "co_occurrence", parameters: { ...SERIES, window: DURATION } },
  "heat-map": { rpc: "heat_map", parameters: { ...SERIES, cycle: oneOf("day", "week") } },
}));

/** The question at a path of the function: `/query-signals`, or `/query-signals/count` and so on. */
export function questionAt(path: string): Question | undefined {
  const [found, subPath = ""] = /^\/query-signals(?:\/(.*))?$/.exec(path) ?? [];
  return found === undefined ? undefined : QUESTIONS.get(subPath);
}
