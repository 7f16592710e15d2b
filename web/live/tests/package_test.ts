/// <reference lib="deno.ns" />
/** What a bundler for browsers needs: no name of Deno or Node, no import that is not declared. */

import { deepStrictEqual, ok } from "node:assert/strict";
import manifest from "../package.json" with { type: "json" };

const SRC = new URL("../src/", import.meta.url);
const PEERS = Object.keys(manifest.peerDependencies);

Deno.test("the sources import each other and the peer dependency, and use nothing of Deno", () => {
  const wrong = [...Deno.readDirSync(SRC)].flatMap(({ name }) => {
    const text = Deno.readTextFileSync(new URL(name, SRC));
    const imports = [...text.matchAll(/\bfrom "([^"]+)"/g)].map(([, specifier]) => specifier!);
    const foreign = imports.filter((one) => !one.startsWith("./") && !PEERS.includes(one));
    const runtime = text.match(/\b(Deno|process|Buffer)\./g) ?? [];
    return [...foreign, ...runtime].map((found) => `${name}: ${found}`);
  });
  deepStrictEqual(wrong, []);
});

Deno.test("what the package exports exists", () => {
  for (const path of Object.values(manifest.exports)) {
    ok(Deno.statSync(new URL(`../${path}`, import.meta.url)).isFile, path);
  }
});
