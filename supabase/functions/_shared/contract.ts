import contract from "./contract.json" with { type: "json" };

/** Why one signal of a batch was not accepted. */
export type ItemCode = keyof typeof contract.item_codes;

/** Why a whole request failed. */
export type ErrorCode = keyof typeof contract.errors;

export function isErrorCode(value: unknown): value is ErrorCode {
  return typeof value === "string" && Object.hasOwn(contract.errors, value);
}

export { contract };
