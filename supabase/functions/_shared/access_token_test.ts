import assert from "node:assert/strict";
import { accessTokenOf } from "./access_token.ts";
import { ApiError } from "./errors.ts";
import { unsignedToken, USER_TOKEN } from "./example_exchange.ts";

Deno.test("the token of a user is passed on, whatever its signature", () => {
  for (const scheme of ["Bearer", "bearer"]) {
    const headers = new Headers({ authorization: `${scheme} ${USER_TOKEN}` });
    assert.equal(accessTokenOf(headers), USER_TOKEN);
  }
});

Deno.test("what is no user's token is unauthorized", () => {
  const refused = [
    undefined,
    "",
    USER_TOKEN,
    `Basic ${USER_TOKEN}`,
    "Bearer sb_publishable_ACJWlzQHlZjBrEguHvfOxg_3BJgxAaH",
    `Bearer ${unsignedToken({ role: "anon" })}`,
    `Bearer ${unsignedToken({ role: "service_role" })}`,
    `Bearer ${unsignedToken({ sub: "" })}`,
    `Bearer ${unsignedToken({ sub: 1 })}`,
    `Bearer ${unsignedToken({ sub: "user-1" })}`,
    `Bearer ${unsignedToken([])}`,
    `Bearer ${USER_TOKEN.slice(0, USER_TOKEN.lastIndexOf(".") + 1)}`,
    `Bearer ${USER_TOKEN.slice(0, USER_TOKEN.lastIndexOf("."))}`,
    `Bearer ${USER_TOKEN}.x`,
    `Bearer ${USER_TOKEN}, Bearer ${USER_TOKEN}`,
    "Bearer a.b.c",
  ];
  for (const authorization of refused) {
    const headers = new Headers(authorization === undefined ? {} : { authorization });
    assert.throws(
      () => accessTokenOf(headers),
      (error) => error instanceof ApiError && error.code === "unauthorized",
      authorization,
    );
  }
});
