/** everwire.js against a scripted server, on a clock that only moves when a check says so. */
import assert from "node:assert/strict";
import { mock } from "node:test";
import { check, everwire, failure, main, range } from "./harness.mjs";

const stopTheClock = () => mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_700_000_000_000 });
stopTheClock();
const { connect, RequestError } = await everwire();

const settle = async () => { for (let turn = 0; turn < 20; turn++) await null; };
const wait = async (ms) => { await settle(); mock.timers.tick(ms); await settle(); };
const [CLOSED, NOT_SENT, UNKNOWN] = [["closed", "none"], ["unanswered", "none"], ["unanswered", "unknown"]];
const fate = async (promise) => { const { name, outcome } = await failure(promise); return [name, outcome]; };

/** A server that is told what to answer: `sent` holds what came, of the newest socket `last`. */
class Peer {
  sockets = [];
  options;

  constructor() {
    const peer = this;
    this.WebSocket = class {
      constructor(url, protocols) {
        Object.assign(this, { url, protocols, sent: [], closed: null });
        peer.sockets.push(this);
      }
      send(text) { this.sent.push(JSON.parse(text)); }
      close(code) { this.closed = code; }
    };
  }
  get last() { return this.sockets.at(-1); }
  all(type, socket = this.last) { return socket.sent.filter((message) => message.type === type); }
  say(message, socket = this.last) { socket.onmessage({ data: JSON.stringify(message) }); }
  end(code, reason = "") { this.last.onclose({ code, reason }); }

  /** Greets the newest socket, and answers its auth and what it subscribes to. */
  async accept({ hello = {}, subscription = result } = {}) {
    await settle();
    const limits = { message: 1_000 };
    this.say({ type: "hello", version: 1, pingInterval: 20_000, limits, ...hello });
    const [auth] = this.all("auth"), requests = this.all("subscribe");
    this.respond(auth, { user: "ada", expiresIn: null, subscriptions: [] });
    for (const request of requests) this.respond(request, { subscriptions: request.channels.map(subscription) });
    await settle();
    return { auth, requests, channels: requests.flatMap(({ channels }) => channels) };
  }
  respond(request, payload) { this.say({ type: "response", requestId: request.id, payload }); }
  refuse(request, error) { this.say({ type: "error", requestId: request.id, message: "no", ...error }); }
  acknowledge(publish, offset) { this.respond(publish, { epoch: "e", offset, duplicate: false }); }
}

let sids = 0;
const result = ({ channel }) => ({ channel, sid: ++sids, epoch: "e", offset: 0, id: "", recovered: true, recoverable: true });
const message = (sid, offset, more = {}) => ({ type: "message", sid, offset, id: `m${offset}`, time: 1, data: offset, ...more });
const HELD = { code: 502, name: "held", temporary: true };
const UNAVAILABLE = { code: 501, name: "unavailable", temporary: true, outcome: "unknown" };

async function connected(options = {}) {
  const peer = new Peer();
  const client = connect("ws://server/ws", { WebSocket: peer.WebSocket, ...options });
  await peer.accept();
  return { peer, client };
}
async function joined(options = {}) {
  const { peer, client } = await connected(), seen = [], gaps = [];
  const room = client.subscribe("c", { onmessage: (item) => seen.push(item.data), ongap: (gap) => gaps.push(gap), ...options });
  const [request] = peer.all("subscribe");
  peer.respond(request, { subscriptions: [result({ channel: "c" })] });
  return { peer, client, room, seen, gaps, sid: sids };
}
/** Loses the link and lets the client come back, however long it waits. */
async function lose(peer, code = 1006) {
  const count = peer.sockets.length;
  peer.end(code);
  for (let second = 0; second < 30 && peer.sockets.length === count; second++) await wait(1_000);
  assert.equal(peer.sockets.length, count + 1, "no new attempt within 30 s");
}

// ---- connecting

check("auth is the first message, the channels follow it without waiting for its answer", async () => {
  const peer = new Peer(), client = connect("ws://server/ws", { token: async () => "t", name: "n", WebSocket: peer.WebSocket });
  client.subscribe("a", { since: { epoch: "e", offset: 7, id: "m7" } });
  client.subscribe("b", { presence: true });
  client.publish("a", 1);
  client.onstate = (state) => state === "authenticating" && client.subscribe("c");
  await settle();
  assert.deepEqual(peer.last.protocols, ["everwire.v1.json"]);
  peer.say({ type: "hello", version: 1, pingInterval: 20_000, limits: {} });
  peer.say({ type: "hello", version: 1, pingInterval: 20_000, limits: {} });
  const [auth, ...requests] = peer.last.sent, [a, b, c, ...rest] = requests.flatMap(({ channels }) => channels);
  assert.equal(auth.type, "auth");
  assert.equal(auth.token, "t");
  assert.equal(auth.client.name, "n");
  assert.match(auth.client.instance, /^[\w.-]{16,32}$/);
  assert.deepEqual(a, { channel: "a", presence: false, position: { epoch: "e", offset: 7, id: "m7" } });
  assert.deepEqual([b.channel, b.presence, c.channel, rest], ["b", true, "c", []]);
  assert.equal(client.state, "authenticating");
});

for (const limit of [30, 100, 200])
  check(`channels are asked for in batches where the server takes ${limit} at a time`, async () => {
    const peer = new Peer(), client = connect("ws://server/ws", { WebSocket: peer.WebSocket });
    for (const n of range(1, 450)) client.subscribe(`c${n}`);
    const { requests, channels } = await peer.accept({ hello: { limits: { subscribeBatch: limit } } });
    assert.ok(requests.every(({ channels }) => channels.length <= Math.min(limit, 100)));
    assert.deepEqual(channels.map(({ channel }) => channel), range(1, 450).map((n) => `c${n}`));
  });

check("a token is fetched for each connection, and a failing fetch is tried again", async () => {
  const peer = new Peer();
  let fetched = 0;
  const token = async () => { if (++fetched === 1) throw new Error("offline"); return `t${fetched}`; };
  const client = connect("ws://server/ws", { token, WebSocket: peer.WebSocket });
  await wait(2_000);
  assert.equal((await peer.accept()).auth.token, "t2");
  await lose(peer);
  assert.equal((await peer.accept()).auth.token, "t3");
  assert.equal(client.stats.reconnects, 1);
});

check("two refused tokens in a row end it; one does not", async () => {
  const { peer, client } = await connected({ token: () => "t" });
  await lose(peer, 4402);
  await peer.accept();
  await lose(peer, 4402);
  peer.end(4402, "expired");
  assert.equal(client.state, "closed");
});

for (const code of [1000, 1001, 1005, 1006, 1011, 1012, 1013, 3000, 4400, 4408, 4440, 4499])
  check(`close code ${code} of the server is followed by a new connection`, async () => {
    const { peer, client } = await connected();
    await lose(peer, code);
    await peer.accept();
    assert.equal(client.state, "ready");
  });

for (const code of [1002, 1003, 1007, 1008, 1009, 1010, 1015, 4500, 4501, 4999])
  check(`close code ${code} is final, and says so to everybody who waits`, async () => {
    const { peer, client } = await connected(), states = [];
    client.onstate = (state, detail) => states.push([state, detail.code]);
    const sent = fate(client.publish("c", 1)), asked = fate(client.query("q")), room = client.subscribe("c");
    peer.end(code, "why");
    assert.deepEqual(states, [["closed", code]]);
    assert.deepEqual([await sent, await asked, room.state], [UNKNOWN, UNKNOWN, "failed"]);
    assert.deepEqual(await fate(client.publish("c", 2)), CLOSED);
    await wait(60_000);
    assert.equal(peer.sockets.length, 1);
  });

check("the first retry comes within 2 s, the next within 100 ms and a limit that doubles up to 20 s", async () => {
  const { peer, client } = await connected(), delays = [];
  client.onstate = (state, detail) => { if (detail?.retryIn !== undefined) delays.push(detail.retryIn); };
  const random = mock.method(Math, "random", () => 0.999999);
  for (let n = 0; n < 8; n++) await lose(peer);
  assert.deepEqual(delays.map((delay) => Math.round(delay)), [2000, 1000, 2000, 4000, 8000, 16000, 20000, 20000]);
  random.mock.mockImplementation(() => 0);
  delays.length = 0;
  peer.end(1006);
  assert.deepEqual(delays, [100]);
});

check("only a link that held for 30 s resets the number of attempts", async () => {
  const { peer, client } = await connected(), delays = [];
  client.onstate = (state, detail) => { if (detail?.retryIn !== undefined) delays.push(Math.round(detail.retryIn)); };
  mock.method(Math, "random", () => 0.999999);
  for (let n = 0; n < 3; n++) {
    await wait(20_000);
    peer.say({ type: "ping", time: 0 });
    await wait(1_000);
    await lose(peer);
    await peer.accept();
  }
  assert.deepEqual(delays, [2000, 1000, 2000]);
  for (let n = 0; n < 2; n++) { await wait(20_000); peer.say({ type: "ping", time: 0 }); }
  await lose(peer);
  assert.equal(delays.at(-1), 2000);
});

check("what an older socket still says is ignored", async () => {
  const { peer, client } = await connected();
  const old = peer.last;
  await lose(peer);
  await peer.accept();
  old.onclose({ code: 4500, reason: "late" });
  old.onmessage({ data: JSON.stringify({ type: "drain", reconnectIn: 0 }) });
  assert.equal(client.state, "ready");
});

check("a ping is answered with its own time", async () => {
  const { peer } = await connected();
  peer.say({ type: "ping", time: 42 });
  assert.deepEqual(peer.all("pong"), [{ type: "pong", time: 42 }]);
});

check("a silence of the ping interval and 10 s is the end of the link; any message breaks it", async () => {
  const { peer, client } = await connected({}), first = peer.last;
  await wait(29_000);
  peer.say({ type: "event", name: "x", data: null });
  await wait(29_000);
  assert.equal(client.state, "ready");
  await wait(1_000);
  assert.equal(client.state, "connecting");
  assert.equal(first.closed, 1000);
});

check("no answer to the connection or to auth within 10 s is a failed attempt", async () => {
  const peer = new Peer(), client = connect("ws://server/ws", { WebSocket: peer.WebSocket });
  await wait(10_000);
  assert.equal(client.state, "connecting");
  await wait(2_000);
  assert.equal(peer.sockets.length, 2);
  peer.say({ type: "hello", version: 1, pingInterval: 20_000, limits: {} });
  assert.equal(client.state, "authenticating");
  await wait(10_000);
  assert.equal(client.state, "connecting");
});

check("drain: reconnect after the time that the server names, without another delay", async () => {
  const { peer, client } = await connected();
  peer.say({ type: "drain", reconnectIn: 700, closeIn: 5_000 });
  assert.equal(client.state, "draining");
  await wait(699);
  assert.equal(peer.sockets.length, 1);
  await wait(1);
  await wait(0);
  assert.equal(peer.sockets.length, 2);
});

check("after a cut the client stays away until resume", async () => {
  const { peer, client } = await connected();
  client.cut();
  await wait(120_000);
  assert.equal(peer.sockets.length, 1);
  client.resume();
  await peer.accept();
  assert.equal(client.state, "ready");
});

check("when the network is back the next attempt comes within 1 s, unless the client is to stay away", async () => {
  const heard = new Map();
  globalThis.addEventListener = (type, listener) => heard.set(type, listener);
  const { peer, client } = await connected();
  delete globalThis.addEventListener;
  mock.method(Math, "random", () => 0.999999);
  for (let n = 0; n < 6; n++) await lose(peer);
  peer.end(1006);
  heard.get("online")();
  await wait(1_000);
  assert.equal(peer.sockets.length, 8);
  await peer.accept();
  client.cut();
  heard.get("online")();
  await wait(30_000);
  assert.equal(peer.sockets.length, 8);
});

check("close ends everything with 1000, and nothing comes after it", async () => {
  const { peer, client, room } = await joined();
  const states = [];
  client.onstate = (state) => states.push(state);
  client.close();
  assert.equal(peer.last.closed, 1000);
  peer.end(1000);
  await wait(60_000);
  assert.deepEqual(states, ["closed"]);
  assert.equal(room.state, "unsubscribed");
  assert.equal(peer.sockets.length, 1);
  assert.throws(() => client.subscribe("d"), { name: "closed" });
});

check("who closes while away cannot come back", async () => {
  const { peer, client } = await connected();
  client.cut();
  client.close();
  client.resume();
  await wait(60_000);
  assert.deepEqual([client.state, peer.sockets.length], ["closed", 1]);
});

check("what comes after leaving is not handed over", async () => {
  const { peer, room, seen, sid } = await joined();
  peer.say(message(sid, 1));
  room.unsubscribe();
  peer.say(message(sid, 2));
  assert.deepEqual([seen, room.position.offset], [[1], 1]);
});

check("a request of the server is answered with unknown_type, what has no id is passed over", async () => {
  const { peer } = await connected();
  peer.say({ type: "query", id: 5, name: "q", payload: null });
  peer.say({ type: "novelty" });
  const [answer] = peer.all("error");
  assert.deepEqual([answer.requestId, answer.code], [5, 101]);
  assert.equal(peer.all("error").length, 1);
});

check("a handler that throws does not stop the link", async () => {
  const quiet = mock.method(console, "error", () => {});
  const { peer, client, seen, sid } = await joined({ onmessage: () => { throw new Error("mine"); } });
  peer.say(message(sid, 1));
  peer.say(message(sid, 2));
  assert.equal(quiet.mock.callCount(), 2);
  assert.equal(client.stats.received, 2);
  assert.deepEqual(seen, []);
});

// ---- channels

check("messages are handed over in order, and what came before is a duplicate", async () => {
  const { peer, client, room, seen, sid } = await joined();
  for (const offset of [1, 2, 2, 1, 3]) peer.say(message(sid, offset));
  assert.deepEqual(seen, [1, 2, 3]);
  assert.equal(client.stats.duplicates, 2);
  assert.deepEqual(room.position, { epoch: "e", offset: 3, id: "m3" });
});

check("prev tells what comes next where offsets are not consecutive", async () => {
  const { peer, seen, sid } = await joined();
  peer.say(message(sid, 1));
  peer.say(message(sid, 5, { prev: 1 }));
  peer.say(message(sid, 9, { prev: 5 }));
  assert.deepEqual(seen, [1, 5, 9]);
});

check("a hole: the channel is left and entered again from the own position", async () => {
  const { peer, seen, sid } = await joined();
  peer.say(message(sid, 1));
  peer.say(message(sid, 4));
  peer.say(message(sid, 5)); // was on its way
  assert.deepEqual(seen, [1]);
  assert.deepEqual(peer.all("unsubscribe")[0].channels, ["c"]);
  const again = peer.all("subscribe")[1];
  assert.deepEqual(again.channels[0].position, { epoch: "e", offset: 1, id: "m1" });
  peer.respond(again, { subscriptions: [{ ...result({ channel: "c" }), sid }] });
  for (const offset of [2, 3, 4, 5]) peer.say(message(sid, offset));
  assert.deepEqual(seen, [1, 2, 3, 4, 5]);
});

check("a pattern has no positions: messages of several channels are handed over as they come", async () => {
  const { peer, client } = await connected(), seen = [];
  client.subscribe("chat:*", {
    onmessage: ({ channel, data }) => seen.push([channel, data]), ongap: ({ reason }) => seen.push(reason),
  });
  const live = (request) => ({ ...result(request), epoch: "", recovered: false, recoverable: false });
  peer.respond(peer.all("subscribe")[0], { subscriptions: [live({ channel: "chat:*" })] });
  const say = (channel, offset) => peer.say(message(sids, offset, { channel }));
  say("chat:a", 7);
  say("chat:b", 2);
  say("chat:a", 8);
  await lose(peer);
  const { channels } = await peer.accept({ subscription: live });
  assert.deepEqual(channels[0].position, { epoch: "", offset: 0, id: "" }); // else the server tells of no gap
  peer.say({ type: "gap", sid: sids, epoch: "", offset: 0, id: "", reason: "dropped" });
  say("chat:a", 11);
  assert.deepEqual(seen, [["chat:a", 7], ["chat:b", 2], ["chat:a", 8], "dropped", ["chat:a", 11]]);
});

check("without a position delivery starts where the server says; with one, where we were", async () => {
  const { peer, room, seen, sid } = await joined();
  peer.say(message(sid, 1));
  await lose(peer);
  const { channels } = await peer.accept({ subscription: (request) => ({ ...result(request), offset: 9, id: "m9" }) });
  assert.deepEqual(channels[0].position, { epoch: "e", offset: 1, id: "m1" });
  peer.say(message(sids, 2));
  assert.deepEqual(seen, [1, 2]);
  assert.equal(room.position.offset, 2);
});

check("a gap is handed over, counted, and moves the position into its epoch", async () => {
  const { peer, client, room, seen, gaps, sid } = await joined();
  peer.say(message(sid, 1));
  peer.say({ type: "gap", sid, epoch: "f", offset: 5, id: "m5", reason: "epoch" });
  peer.say(message(sid, 6));
  const position = { epoch: "f", offset: 5, id: "m5" };
  assert.deepEqual(gaps, [{ channel: "c", reason: "epoch", from: null, position }]);
  assert.deepEqual(seen, [1, 6]);
  assert.equal(client.stats.gaps, 1);
  assert.deepEqual(room.position, { epoch: "f", offset: 6, id: "m6" });
});

check("sids of one connection mean nothing on the next", async () => {
  const { peer, seen, sid } = await joined();
  await lose(peer);
  await peer.accept();
  assert.notEqual(sids, sid);
  peer.say(message(sid, 1));
  assert.deepEqual(seen, []);
  peer.say(message(sids, 1));
  assert.deepEqual(seen, [1]);
});

check("leaving while the subscription is on its way leaves nothing behind", async () => {
  const { peer, client } = await connected(), seen = [];
  const first = client.subscribe("c");
  first.unsubscribe();
  const second = client.subscribe("c", { onmessage: ({ data }) => seen.push(data) });
  assert.deepEqual(peer.last.sent.slice(1).map(({ type }) => type), ["subscribe", "unsubscribe", "subscribe"]);
  for (const request of peer.all("subscribe")) peer.respond(request, { subscriptions: [{ ...result({ channel: "c" }), sid: 77 }] });
  peer.say(message(77, 1));
  assert.deepEqual([seen, first.state, second.state], [[1], "unsubscribed", "subscribed"]);
  assert.equal(peer.all("unsubscribe").length, 1);
});

check("leaving before auth is answered, and entering again", async () => {
  const peer = new Peer(), client = connect("ws://server/ws", { WebSocket: peer.WebSocket });
  const first = client.subscribe("c");
  await settle();
  peer.say({ type: "hello", version: 1, pingInterval: 20_000, limits: {} });
  first.unsubscribe();
  const second = client.subscribe("c");
  assert.deepEqual(peer.last.sent.map(({ type }) => type), ["auth", "subscribe", "unsubscribe", "subscribe"]);
  peer.respond(peer.all("auth")[0], { user: "" });
  for (const request of peer.all("subscribe")) peer.respond(request, { subscriptions: [result({ channel: "c" })] });
  assert.deepEqual([first.state, second.state], ["unsubscribed", "subscribed"]);
});

check("a refused channel fails with the server's error; a temporary refusal is tried again", async () => {
  const { peer, client } = await connected();
  const states = [], reasons = [];
  const never = client.subscribe("never", { onstate: (state, error) => reasons.push(state, error.name, error instanceof RequestError) });
  const later = client.subscribe("later", { onstate: (state) => states.push(state) });
  const [one, two] = peer.all("subscribe");
  peer.respond(one, { subscriptions: [{ channel: "never", error: { code: 202, name: "forbidden", message: "no" } }] });
  peer.respond(two, { subscriptions: [{ channel: "later", error: { ...UNAVAILABLE, message: "x", retryAfter: 900 } }] });
  assert.deepEqual([never.state, ...reasons], ["failed", "failed", "forbidden", true]);
  await wait(900);
  peer.respond(peer.all("subscribe")[2], { subscriptions: [result({ channel: "later" })] });
  assert.deepEqual(states, ["subscribing", "subscribed"]);
  assert.equal(client.subscribe("never").state, "subscribing");
});

check("a channel that waits to be entered again is entered once after a reconnection", async () => {
  const { peer, sid } = await joined();
  peer.say({ type: "unsubscribed", sid, code: 501, temporary: true, retryAfter: 20_000 });
  await lose(peer);
  const { channels } = await peer.accept();
  assert.deepEqual(channels.map(({ channel }) => channel), ["c"]);
  await wait(20_000);
  assert.equal(peer.all("subscribe").length, 1);
});

check("unsubscribed by the server: for good it ends, for now it is entered again from its position", async () => {
  const { peer, room, sid } = await joined();
  peer.say(message(sid, 1));
  peer.say({ type: "unsubscribed", sid, code: 501, temporary: true, retryAfter: 100 });
  assert.equal(room.state, "subscribing");
  await wait(100);
  const again = peer.all("subscribe")[1];
  assert.equal(again.channels[0].position.offset, 1);
  peer.respond(again, { subscriptions: [result({ channel: "c" })] });
  peer.say({ type: "unsubscribed", sid: sids, code: 202 });
  assert.equal(room.state, "failed");
});

check("presence: full replaces, later changes are applied", async () => {
  const counts = [], { peer, room, sid } = await joined({ presence: true, onpresence: ({ members, count }) => counts.push([members.size, count]) });
  const member = (connection) => ({ connection, user: connection });
  peer.say({ type: "presence", sid, full: true, joined: [member("a"), member("b")], left: [], count: 2 });
  peer.say({ type: "presence", sid, full: false, joined: [member("c")], left: ["a"], count: 2 });
  assert.deepEqual([...room.members.keys()], ["b", "c"]);
  peer.say({ type: "presence", sid, full: true, joined: [member("d")], left: [], count: 1 });
  assert.deepEqual([...room.members.keys()], ["d"]);
  assert.deepEqual(counts, [[2, 2], [2, 2], [1, 1]]);
});

check("without onmessage items are counted, and the position follows them", async () => {
  const { peer, client, room, sid } = await joined({ onmessage: undefined, ongap: undefined });
  peer.say(message(sid, 1));
  peer.say({ type: "gap", sid, from: 1, epoch: "e", offset: 4, id: "m4", reason: "expired" });
  peer.say(message(sid, 5));
  assert.deepEqual([client.stats.received, client.stats.gaps, room.position.offset], [2, 1, 5]);
});

// ---- the outbox

check("a publish resolves on its acknowledgement only", async () => {
  const { peer, client } = await connected();
  let done = null;
  client.publish("c", { a: 1 }).then((answer) => { done = answer; });
  await wait(1_000);
  assert.equal(done, null);
  const [publish] = peer.all("publish");
  assert.match(publish.id, /^[\w.-]{16,32}-\d+$/);
  assert.deepEqual([publish.channel, publish.data, publish.run], ["c", { a: 1 }, 0]);
  peer.respond(publish, { epoch: "e", offset: 3, duplicate: true });
  await settle();
  assert.deepEqual(done, { position: { epoch: "e", offset: 3, id: publish.id }, duplicate: true });
});

check("after a reconnection what is unacknowledged goes out first, in order, with the same ids and the next run", async () => {
  const { peer, client } = await connected();
  for (const n of [1, 2, 3]) client.publish("c", n);
  const before = peer.all("publish");
  peer.acknowledge(before[0], 1);
  peer.end(1006);
  client.publish("c", 4);
  client.publish("d", 5);
  await wait(2_000);
  await peer.accept();
  const after = peer.all("publish");
  assert.deepEqual(after.map(({ data }) => data), [2, 3, 4, 5]);
  assert.deepEqual(after.slice(0, 2).map(({ id }) => id), before.slice(1).map(({ id }) => id));
  assert.deepEqual(after.map(({ run }) => run), [1, 1, 1, 0]);
  client.publish("d", 6);
  assert.deepEqual(peer.all("publish").map(({ data }) => data), [2, 3, 4, 5, 6]);
});

check("after a temporary failure all of the channel are sent again, in order, with the next run", async () => {
  const { peer, client } = await connected();
  for (const n of [1, 2, 3]) client.publish("c", n);
  client.publish("other", 9);
  const [one, two, three, other] = peer.all("publish");
  peer.refuse(one, { ...UNAVAILABLE, retryAfter: 300 });
  peer.refuse(two, HELD);
  client.publish("c", 4); // must not overtake
  await wait(10_000);
  assert.equal(peer.all("publish").length, 4, "nothing is sent again while one of the run is unanswered");
  peer.refuse(three, HELD);
  peer.acknowledge(other, 1);
  await wait(299);
  assert.equal(peer.all("publish").length, 4);
  await wait(1);
  const again = peer.all("publish").slice(4);
  assert.deepEqual(again.map(({ data, run }) => [data, run]), [[1, 1], [2, 1], [3, 1], [4, 1]]);
  assert.deepEqual(again.slice(0, 3).map(({ id }) => id), [one.id, two.id, three.id]);
});

check("a link that drops while a channel waits to be sent again: the next link sends all of it at once, in order", async () => {
  const { peer, client } = await connected();
  for (const n of [1, 2]) client.publish("c", n);
  const [one, two] = peer.all("publish");
  peer.refuse(one, { ...UNAVAILABLE, retryAfter: 50_000 });
  peer.refuse(two, HELD);
  await lose(peer);
  await peer.accept();
  assert.deepEqual(peer.all("publish").map(({ data, run }) => [data, run]), [[1, 1], [2, 1]]);
});

check("a refusal for good fails that publish alone", async () => {
  const { peer, client } = await connected();
  const first = client.publish("c", 1), second = client.publish("c", 2), [one, two] = peer.all("publish");
  peer.refuse(one, { code: 202, name: "forbidden" });
  peer.acknowledge(two, 1);
  const error = await failure(first);
  assert.ok(error instanceof RequestError);
  assert.deepEqual([error.code, error.name, error.temporary, error.outcome], [202, "forbidden", false, "none"]);
  assert.equal((await second).position.offset, 1);
});

check("what was never sent had no effect, what was sent may have had", async () => {
  const { peer, client } = await connected(), sent = fate(client.publish("c", 1));
  await wait(50_000);
  client.cut();
  const unsent = fate(client.publish("c", 2)), brief = fate(client.query("q", null, { timeout: 500 }));
  await wait(10_000);
  assert.deepEqual(await sent, UNKNOWN);
  assert.deepEqual(await brief, NOT_SENT);
  await wait(50_000);
  assert.deepEqual(await unsent, NOT_SENT);
  client.resume();
  await peer.accept();
  assert.deepEqual(peer.all("publish"), []);
});

check("what was first sent longer ago than the server remembers ids is not sent again", async () => {
  const { peer, client } = await connected(), options = { timeout: 600_000 };
  const old = fate(client.publish("c", 1, options));
  await wait(20_000);
  client.cut();
  client.resume();
  await peer.accept();
  assert.equal(peer.all("publish").length, 1);
  client.cut();
  client.publish("c", 2, options);
  await wait(250_001);
  client.resume();
  await peer.accept({ hello: { limits: { dedupeWindow: 300_000 } } });
  assert.deepEqual(await old, UNKNOWN);
  assert.deepEqual(peer.all("publish").map(({ data }) => data), [2]);
});

check("the outbox holds 1000; the next is refused at once", async () => {
  const { peer, client } = await connected();
  for (let n = 0; n < 1_000; n++) client.publish("c", n);
  assert.deepEqual(await fate(client.publish("c", 1_000)), ["outbox_full", "none"]);
  assert.equal(peer.all("publish").length, 1_000);
});

check("names that mean something to JavaScript are data like any other", async () => {
  const { peer, client, seen, sid } = await joined();
  const data = JSON.parse('{"__proto__": {"admin": 1}, "constructor": {"prototype": {"admin": 1}}, "toString": null}');
  peer.say(message(sid, 1, { data }));
  const answer = client.query("q");
  peer.respond(peer.all("query")[0], data);
  for (const came of [seen[0], await answer]) {
    assert.deepEqual(Object.keys(came), ["__proto__", "constructor", "toString"]);
    assert.equal(JSON.stringify(came), JSON.stringify(data));
  }
  assert.equal({}.admin, undefined);
  assert.equal(Object.admin, undefined);
});

check("what is larger than the server's limit is refused at once", async () => {
  const { peer, client } = await connected();
  assert.equal((await failure(client.publish("c", "ä".repeat(500)))).name, "too_big");
  assert.deepEqual(peer.all("publish"), []);
});

check("what is published is what it was at the time of the call", async () => {
  const { peer, client } = await connected(), data = { n: 1 };
  client.cut();
  client.publish("c", data);
  data.n = 2;
  client.resume();
  await peer.accept();
  assert.deepEqual(peer.all("publish")[0].data, { n: 1 });
});

check("a query is asked again once when the link drops, not twice", async () => {
  const { peer, client } = await connected(), answer = fate(client.query("q", { a: 1 }, { timeout: 300_000 }));
  assert.deepEqual(peer.all("query").map(({ name, payload }) => [name, payload]), [["q", { a: 1 }]]);
  await lose(peer);
  await peer.accept();
  assert.equal(peer.all("query").length, 1);
  await lose(peer);
  await peer.accept();
  assert.deepEqual(await answer, UNKNOWN);
  assert.equal(peer.all("query").length, 0);
});

check("a command is sent again with the same key until it is answered", async () => {
  const { peer, client } = await connected(), answer = client.command("say", 1, { timeout: 300_000 });
  const { key } = peer.all("command")[0];
  assert.match(key, /^[\w.-]{16,32}$/);
  for (let n = 0; n < 3; n++) {
    await lose(peer);
    await peer.accept();
    assert.equal(peer.all("command")[0].key, key);
  }
  peer.respond(peer.all("command")[0], "done");
  assert.equal(await answer, "done");
});

check("an answer that does not come in time fails the request", async () => {
  const { peer, client } = await connected(), answer = fate(client.query("q", null, { timeout: 500 }));
  assert.equal(peer.all("query")[0].timeout, 500);
  await wait(500);
  assert.deepEqual(await answer, UNKNOWN);
});

check("events go both ways, and without a link they are dropped", async () => {
  const { peer, client } = await connected(), seen = [];
  client.onevent = (name, data) => seen.push([name, data]);
  peer.say({ type: "event", name: "degraded", data: { since: 1 } });
  client.event("typing", "c");
  client.cut();
  client.event("typing", "c");
  assert.deepEqual(peer.all("event"), [{ type: "event", name: "typing", data: "c" }]);
  assert.deepEqual(seen, [["degraded", { since: 1 }]]);
});

await main({
  cleanUp: () => {
    mock.restoreAll();
    mock.timers.reset();
    stopTheClock();
  },
});
