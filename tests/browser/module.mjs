/** everwire.js under node, against a running demo server: `node module.mjs '["the rule"]' ws://…`. */
import assert from "node:assert/strict";
import { check, everwire, failure, main, pause, range, until } from "./harness.mjs";
import { Link } from "./link.mjs";

const { connect } = await everwire();
const clients = [];
const channel = () => `test:${crypto.randomUUID()}`;

async function connected(url, token = "ada") {
  const client = connect(url, { token, WebSocket: Link });
  clients.push(client);
  await until(() => client.state === "ready", () => `the client is ${client.state}`);
  return client;
}
/** A subscription that notes what it is handed, once the server has confirmed it. */
async function joined(client, name, options = {}) {
  const seen = [], gaps = [];
  const room = client.subscribe(name, {
    onmessage: ({ data }) => seen.push(data), ongap: (gap) => gaps.push(gap), ...options,
  });
  await until(() => room.state === "subscribed", () => `${name} was not subscribed to`);
  return { room, seen, gaps };
}
const all = (seen, count) => until(() => seen.length >= count, () => `${seen.length} of ${count} came: ${seen.slice(0, 300)}`);

check("a publish is acknowledged with its position, and order is the order of the calls", async (url) => {
  const client = await connected(url), name = channel(), { room, seen } = await joined(client, name);
  const answers = await Promise.all(range(1, 500).map((n) => client.publish(name, n)));
  await all(seen, 500);
  assert.deepEqual(seen, range(1, 500));
  assert.deepEqual(answers.map(({ position }) => position.offset), range(1, 500));
  assert.ok(answers.every(({ duplicate }) => duplicate === false));
  assert.deepEqual(room.position, answers.at(-1).position);
  const { received, duplicates, gaps } = client.stats;
  assert.deepEqual([received, duplicates, gaps], [500, 0, 0]);
});

check("what was published meanwhile is recovered after a cut: all, once, in order", async (url) => {
  const away = await connected(url), other = await connected(url, "bob"), name = channel();
  const { seen, gaps } = await joined(away, name);
  await other.publish(name, 1);
  await all(seen, 1);
  away.cut();
  for (const n of range(2, 60)) await other.publish(name, n);
  await pause(100);
  assert.deepEqual(seen, [1]);
  away.resume();
  await all(seen, 60);
  await other.publish(name, 61);
  await all(seen, 61);
  assert.deepEqual(seen, range(1, 61));
  assert.deepEqual([gaps.length, away.stats.duplicates, away.stats.reconnects], [0, 0, 1]);
});

check("the link cut again and again in the midst of publishing: each arrives once, in order", async (url) => {
  const client = await connected(url), other = await connected(url, "bob"), name = channel();
  const { seen } = await joined(other, name), own = await joined(client, name), acknowledged = [];
  for (let n = 1; n <= 300; n++) {
    acknowledged.push(client.publish(name, n));
    if (n % 30 === 0) { client.cut(); client.resume(); }
    if (n % 7 === 0) await pause(2);
  }
  const answers = await Promise.all(acknowledged);
  await all(seen, 300);
  await all(own.seen, 300);
  await pause(100);
  assert.deepEqual(seen, range(1, 300));
  assert.deepEqual(own.seen, range(1, 300));
  assert.deepEqual(answers.map(({ position }) => position.offset), range(1, 300));
  assert.deepEqual([own.gaps.length, client.stats.duplicates], [0, 0]);
});

check("what is published without a link goes out when there is one", async (url) => {
  const client = await connected(url), other = await connected(url, "bob"), name = channel();
  const { seen } = await joined(other, name);
  client.cut();
  const acknowledged = range(1, 20).map((n) => client.publish(name, n));
  client.resume();
  await Promise.all(acknowledged);
  await all(seen, 20);
  assert.deepEqual(seen, range(1, 20));
});

check("more missed than the history keeps is one gap, then the oldest that is kept", async (url) => {
  const away = await connected(url), other = await connected(url, "bob"), name = channel();
  const { seen, gaps } = await joined(away, name);
  await other.publish(name, 1);
  await all(seen, 1);
  away.cut();
  await Promise.all(range(2, 151).map((n) => other.publish(name, n)));
  away.resume();
  await all(seen, 101);
  assert.deepEqual(seen, [1, ...range(52, 151)]);
  assert.deepEqual(gaps.map(({ from, reason, position }) => [from, reason, position.offset]), [[1, "expired", 51]]);
});

check("since a position: all that came after it", async (url) => {
  const client = await connected(url), name = channel(), positions = [];
  for (const n of range(1, 10)) positions.push((await client.publish(name, n)).position);
  const items = [], { room } = await joined(client, name, { since: positions[3], onmessage: (item) => items.push(item) });
  await all(items, 6);
  assert.deepEqual(items.map(({ data }) => data), range(5, 10));
  for (const { channel, publisher, time } of items) {
    assert.deepEqual([channel, publisher], [name, "ada"]);
    assert.ok(Math.abs(time - Date.now()) < 60_000);
  }
  assert.deepEqual(room.position, positions[9]);
});

check("a position of another epoch is a gap, not a silence", async (url) => {
  const client = await connected(url), name = channel();
  for (const n of [1, 2, 3]) await client.publish(name, n);
  const { seen, gaps } = await joined(client, name, { since: { epoch: "never", offset: 2, id: "x" } });
  await all(seen, 3);
  assert.deepEqual([seen, gaps.length], [[1, 2, 3], 1]);
});

check("queries and commands are answered, and an unknown name is an error with its code", async (url) => {
  const client = await connected(url);
  assert.ok(Math.abs(Date.parse(await client.query("time")) - Date.now()) < 60_000);
  assert.deepEqual(await client.query("echo", { a: [1, "ü", null] }), { a: [1, "ü", null] });
  assert.deepEqual(await client.command("echo", { b: 2 }), { b: 2 });
  const error = await failure(client.query("nonsense"));
  assert.deepEqual([error.code, error.name, error.temporary], [101, "unknown_type", false]);
});

check("queries and commands in flight survive a cut", async (url) => {
  const client = await connected(url);
  const asked = [client.query("echo", 1), client.command("echo", 2), client.query("echo", 3)];
  client.cut();
  client.resume();
  assert.deepEqual(await Promise.all(asked), [1, 2, 3]);
});

check("a command sent twice with one key runs once, and another payload under it is refused", async (url) => {
  const client = await connected(url), key = crypto.randomUUID();
  assert.equal(await client.command("echo", 1, { key }), 1);
  assert.equal(await client.command("echo", 1, { key }), 1);
  assert.equal((await failure(client.command("echo", 2, { key }))).name, "key_reused");
});

check("history and presence can be asked for", async (url) => {
  const client = await connected(url), name = channel();
  for (const n of range(1, 5)) await client.publish(name, n);
  await joined(client, name, { presence: true });
  const history = await client.query("everwire.history", { channel: name, limit: 3 });
  assert.deepEqual(history.messages.map(({ offset, data, publisher }) => [offset, data, publisher]),
    [[3, 3, "ada"], [4, 4, "ada"], [5, 5, "ada"]]);
  assert.equal(history.offset, 5);
  const presence = await client.query("everwire.presence", { channel: name });
  assert.deepEqual(presence.members.map(({ user }) => user), ["ada"]);
  assert.equal(presence.count, 1);
});

check("presence shows who comes and goes, and does not outlast the link", async (url) => {
  const ada = await connected(url), bob = await connected(url, "bob"), name = channel();
  const { room } = await joined(ada, name, { presence: true });
  const users = () => [...room.members.values()].map(({ user }) => user).sort().join();
  await until(() => users() === "ada", () => `present: ${users()}`);
  const { room: other } = await joined(bob, name);
  await until(() => users() === "ada,bob", () => `present: ${users()}`);
  bob.cut();
  await until(() => users() === "ada", () => `present: ${users()}`);
  bob.resume();
  await until(() => users() === "ada,bob", () => `present: ${users()}`);
  other.unsubscribe();
  await until(() => users() === "ada", () => `present: ${users()}`);
});

check("leaving and entering at once leaves one subscription", async (url) => {
  const client = await connected(url), name = channel();
  for (let n = 0; n < 5; n++) client.subscribe(name).unsubscribe();
  const { seen } = await joined(client, name);
  await client.publish(name, 1);
  await all(seen, 1);
  await pause(100);
  assert.deepEqual([seen, client.stats.duplicates], [[1], 0]);
});

check("hundreds of channels come back after a cut", async (url) => {
  const client = await connected(url), other = await connected(url, "bob"), seen = [];
  const prefix = channel(), names = range(1, 450).map((n) => `${prefix}:${n}`);
  const rooms = names.map((name) => client.subscribe(name, { onmessage: (message) => seen.push(message.channel) }));
  const subscribed = () => rooms.filter(({ state }) => state === "subscribed").length;
  await until(() => subscribed() === 450, () => `${subscribed()} are subscribed`);
  client.cut();
  await Promise.all(names.map((name) => other.publish(name, 1)));
  client.resume();
  await all(seen, 450);
  assert.deepEqual(seen.sort(), names.sort());
});

check("too big a message is refused at once", async (url) => {
  const client = await connected(url);
  const error = await failure(client.publish(channel(), "x".repeat(2 ** 20)));
  assert.deepEqual([error.name, error.outcome, client.state], ["too_big", "none", "ready"]);
});

check("a channel that cannot be fails with the server's error", async (url) => {
  const client = await connected(url), reasons = [];
  const room = client.subscribe("everwire.mine", { onstate: (state, { name }) => reasons.push(state, name) });
  await until(() => room.state === "failed", () => `the subscription is ${room.state}`);
  assert.deepEqual(reasons, ["failed", "bad_channel"]);
  assert.equal((await failure(client.publish("no spaces", 1))).name, "bad_channel");
  assert.equal(client.state, "ready");
});

await main({ cleanUp: () => clients.splice(0).forEach((client) => client.close()) });
