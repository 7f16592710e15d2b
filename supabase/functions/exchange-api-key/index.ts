import { dependenciesFrom, required, secretKeyFrom } from "../_shared/environment.ts";
import { exchangeApiKey } from "./handler.ts";
import { tokenSignerFrom } from "./token_signer.ts";

const SIGNING_KEY = "SIGNAL_JWT_SIGNING_KEY";

const dependencies = dependenciesFrom(Deno.env);
const handler = exchangeApiKey({
  signer: await tokenSignerFrom(required(Deno.env.get(SIGNING_KEY), SIGNING_KEY)),
  secretKey: secretKeyFrom(Deno.env),
  now: () => Date.now() / 1000,
});

Deno.serve((request) => handler(request, dependencies));
