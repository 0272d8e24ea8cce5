/** everwire.js while its server is replaced: says "ready" when it may be, `node restart.mjs '["the rule"]' ws://…`. */
import assert from "node:assert/strict";
import { check, everwire, main, range, until } from "./harness.mjs";
import { Link } from "./link.mjs";

const { connect } = await everwire();

check("a server that forgot everything means a gap, and then it goes on", async (url) => {
  const client = connect(url, { token: "ada", WebSocket: Link }), seen = [], gaps = [];
  const room = client.subscribe("c", { onmessage: ({ data }) => seen.push(data), ongap: (gap) => gaps.push(gap) });
  const all = (count) => until(() => seen.length >= count, () => `${seen.length} of ${count} came`);
  await until(() => room.state === "subscribed", () => `the subscription is ${room.state}`);
  for (const n of range(1, 10)) await client.publish("c", n);
  await all(10);
  const { epoch } = room.position;
  console.log("ready");
  await until(() => client.state === "connecting", () => `the link did not end, but is ${client.state}`);
  const late = range(11, 20).map((n) => client.publish("c", n));
  const answers = await Promise.all(late);
  await all(20);
  assert.deepEqual(seen, range(1, 20));
  assert.equal(gaps.length, 1);
  assert.notEqual(gaps[0].position.epoch, epoch);
  assert.deepEqual(room.position, answers.at(-1).position);
  assert.deepEqual(answers.map(({ position }) => position.offset), range(1, 10));
  assert.equal(client.stats.duplicates, 0);
});

await main();
