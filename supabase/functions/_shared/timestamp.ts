import { contract } from "./contract.ts";

const TIMESTAMP = new RegExp(contract.patterns.timestamp);

/** Whether the value is text of the contract's form that names a day which exists. */
export function isTimestamp(value: unknown): value is string {
  if (typeof value !== "string" || !TIMESTAMP.test(value)) return false;
  const day = Number(value.slice(8, 10));
  return day <= 28 || day <= daysInMonth(Number(value.slice(0, 4)), Number(value.slice(5, 7)));
}

/** Microseconds since 1970 of text that {@link isTimestamp} accepts; years up to 2999 need a bigint. */
export function microsecondsOf(timestamp: string): bigint {
  const zoneStart = timestamp.endsWith("Z") ? timestamp.length - 1 : timestamp.length - 6;
  const local = Date.parse(`${timestamp.slice(0, 19)}Z`);
  const fraction = timestamp.slice(20, zoneStart).padEnd(6, "0");
  return BigInt(local - offsetMilliseconds(timestamp.slice(zoneStart))) * 1000n + BigInt(fraction);
}

function offsetMilliseconds(zone: string): number {
  if (zone === "Z") return 0;
  const minutes = Number(zone.slice(1, 3)) * 60 + Number(zone.slice(4, 6));
  return (zone.startsWith("-") ? -minutes : minutes) * 60_000;
}

function daysInMonth(year: number, month: number): number {
  return new Date(Date.UTC(year, month, 0)).getUTCDate();
}
