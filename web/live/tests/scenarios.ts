/** The scenarios that the clients of every language run: tests/scenarios/live_delivery.json. */

import scenarios from "../../../tests/scenarios/live_delivery.json" with { type: "json" };

export interface Step {
  readonly do?: string;
  readonly expect?: Readonly<Record<string, unknown>>;
  readonly [argument: string]: unknown;
}

export interface CoreScenario {
  readonly name: string;
  readonly options?: Readonly<Record<string, unknown>>;
  readonly steps: readonly Step[];
}

export interface Refusal {
  readonly said: string;
  readonly reason: string;
  readonly renews_token: boolean;
}

export const CORE: readonly CoreScenario[] = scenarios.core;
export const REFUSALS: readonly Refusal[] = scenarios.refusals;
