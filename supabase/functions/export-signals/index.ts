import { dependenciesFrom } from "../_shared/environment.ts";
import { handler } from "./handler.ts";

const dependencies = dependenciesFrom(Deno.env);

Deno.serve((request) => handler(request, dependencies));
