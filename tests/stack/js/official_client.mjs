// Drives the stack with @supabase/supabase-js, unmodified. Prints one JSON object: check -> outcome.
// Arguments come in the environment: SUPABASE_URL, PUBLISHABLE_KEY, SECRET_KEY.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { createClient } from "@supabase/supabase-js";
import WebSocket from "ws";

const { SUPABASE_URL, PUBLISHABLE_KEY, SECRET_KEY } = process.env;
const options = {
  auth: { persistSession: false, autoRefreshToken: false },
  realtime: { transport: WebSocket },
};
const admin = createClient(SUPABASE_URL, SECRET_KEY, options);
const user = createClient(SUPABASE_URL, PUBLISHABLE_KEY, options);
const email = `${randomUUID()}@example.com`;
const password = "a password of some length";

const ok = ({ data, error, count }) => {
  assert.equal(error, null, JSON.stringify(error));
  return count === undefined || count === null ? data : { data, count };
};
const items = (columns = "id") => admin.from("rest_items").select(columns);
const ids = (rows) => rows.map((row) => row.id);

const checks = {
  async "signs up, out and in"() {
    const { user: created } = ok(await user.auth.signUp({ email, password }));
    assert.equal(created.email, email);
    await user.auth.signOut();
    const { session } = ok(await user.auth.signInWithPassword({ email, password }));
    assert.equal(session.token_type, "bearer");
    assert.equal(ok(await user.auth.getUser()).user.id, created.id);
  },
  async "verifies the token by the published keys"() {
    const { claims, header } = ok(await user.auth.getClaims());
    assert.equal(header.alg, "ES256");
    assert.equal(claims.email, email);
  },
  async "refreshes the session and updates the user"() {
    const before = (await user.auth.getSession()).data.session;
    const { session } = ok(await user.auth.refreshSession());
    assert.notEqual(session.refresh_token, before.refresh_token);
    const updated = ok(await user.auth.updateUser({ data: { theme: "dark" } })).user;
    assert.equal(updated.user_metadata.theme, "dark");
  },
  async "names the error of a wrong password"() {
    const other = createClient(SUPABASE_URL, PUBLISHABLE_KEY, options);
    const { error } = await other.auth.signInWithPassword({ email, password: "wrong password" });
    assert.equal(error.code, "invalid_credentials");
    assert.equal(error.status, 400);
  },
  async "administers users"() {
    const address = `${randomUUID()}@example.com`;
    const { user: made } = ok(
      await admin.auth.admin.createUser({ email: address, password, email_confirm: true }),
    );
    assert.equal(ok(await admin.auth.admin.getUserById(made.id)).user.email, address);
    const { users } = ok(await admin.auth.admin.listUsers({ page: 1, perPage: 1000 }));
    assert.ok(users.some((one) => one.id === made.id));
    ok(await admin.auth.admin.deleteUser(made.id));
    const { error } = await admin.auth.admin.getUserById(made.id);
    assert.equal(error.code, "user_not_found");
  },
  async "calls functions by POST and GET, as the signed-in user"() {
    assert.equal(ok(await admin.rpc("rest_add", { a: 1, b: 2 })), 3);
    assert.equal(ok(await admin.rpc("rest_add", { a: 1 }, { get: true })), 11);
    assert.deepEqual(ok(await admin.rpc("rest_numbers", { upto: 3 })), [1, 2, 3]);
    const rows = ok(await admin.rpc("rest_from", { low: 39 }).select("id").eq("id", 40));
    assert.deepEqual(rows, [{ id: 40 }]);
    const me = ok(await user.rpc("rest_whoami"));
    assert.equal(me.role, "authenticated");
    assert.equal(me.uid, (await user.auth.getUser()).data.user.id);
    const { error, status } = await admin.rpc("rest_fail", { code: "PT429" });
    assert.deepEqual([status, error.code, error.details, error.hint], [429, "PT429", "why", "how"]);
  },
  async "filters, orders and pages"() {
    const page = ok(await items().gt("id", 10).not("n", "is", null).order("id").limit(3));
    assert.deepEqual(ids(page), [11, 12, 13]);
    assert.deepEqual(ids(ok(await items().in("name", ["item 1", "a,b"]))), [1]);
    assert.deepEqual(ids(ok(await items().or("id.eq.1,and(id.gt.39,n.eq.5)").order("id"))), [
      1,
      40,
    ]);
    assert.deepEqual(ids(ok(await items().contains("tags", ["t1"]).lt("id", 6).order("id"))), [
      1,
      5,
    ]);
    assert.deepEqual(ids(ok(await items().eq("data->>a", "7"))), [7]);
    assert.deepEqual(ids(ok(await items().ilike("name", "ITEM 4_"))), [40]);
    const aliased = ok(await items("title:name,price::text").eq("id", 2).single());
    assert.deepEqual(aliased, { title: "item 2", price: "3.00" });
    assert.deepEqual(ids(ok(await items().order("id", { ascending: false }).range(1, 2))), [
      39,
      38,
    ]);
  },
  async "counts, and takes one row or none"() {
    const counted = await admin.from("rest_items").select("*", { count: "exact", head: true });
    assert.equal(counted.count, 40);
    assert.equal(ok(await items().eq("id", -1).maybeSingle()), null);
    assert.equal((await items().single()).error.code, "PGRST116");
    assert.equal(ok(await items("id,name").eq("id", 1).csv()), 'id,name\n1,"item 1"');
  },
  async "inserts, changes, upserts and deletes"() {
    const table = admin.from("rest_items");
    assert.deepEqual(ids(ok(await table.insert([{ id: 300 }, { id: 301, n: 1 }]).select())), [
      300,
      301,
    ]);
    assert.equal(ok(await table.update({ n: 9 }).eq("id", 300).select().single()).n, 9);
    ok(await table.upsert({ id: 301, n: 2 }));
    const left = await table.upsert({ id: 301, n: 3 }, { ignoreDuplicates: true }).select();
    assert.deepEqual(ok(left), []);
    assert.equal(ok(await items("n").eq("id", 301).single()).n, 2);
    const { count } = await table.delete({ count: "exact" }).gte("id", 300);
    assert.equal(count, 2);
    const { error, status } = await table.insert({ id: 1 });
    assert.deepEqual([status, error.code], [409, "23505"]);
  },
  async "reaches an edge function with the caller's token"() {
    const { data, error } = await user.functions.invoke("query-signals", { body: {} });
    assert.equal(error, null, JSON.stringify(error));
    assert.deepEqual(data.signals, []);
  },
};

const outcomes = {};
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
    outcomes[name] = "ok";
  } catch (error) {
    outcomes[name] = String(error?.stack ?? error);
  }
}
await user.auth.signOut();
await Promise.all([user.removeAllChannels(), admin.removeAllChannels()]);
console.log(JSON.stringify(outcomes));
