/**
 * The browser's client of everwire: one module, no dependencies, dialect `everwire.v1.json`.
 *
 *   const client = connect("/ws", { token });                          // reconnects by itself
 *   const room = client.subscribe("chat:lobby", { onmessage: ({ data }) => show(data) });
 *   const { position } = await client.publish("chat:lobby", "hello");  // stored when it resolves
 * Times are in milliseconds. docs/protocol.md is the reference for the rules followed here.
 */
const CONNECT_TIMEOUT = 10_000, PING_GRACE = 10_000, STABLE_AFTER = 30_000, DEDUPE_MARGIN = 30_000;
const OUTBOX = 1_000, BATCH = 100; // so many channels with the longest names fit into 64 KiB
const FINAL = [1002, 1003, 1007, 1008, 1009, 1010, 1015];

const isFinal = (code) => FINAL.includes(code) || (code >= 4500 && code < 5000);
const uniform = (low, high) => low + Math.random() * (high - low);
const after = (delay, action) => setTimeout(action, Math.min(delay, 2 ** 31 - 1)); // its limit
const randomId = () => crypto.getRandomValues(new Uint32Array(3)).join("."); // 96 bits
const tell = (handler, ...values) => { // a handler's failure is not the link's
  try { handler?.(...values); } catch (error) { console.error(error); }
};
const enter = (subject, state, detail = null) => { // a client or a subscription
  subject.state = state;
  tell(subject.onstate, state, detail);
};

/** `name` is the server's, as "forbidden", or one of ours: "closed", "outbox_full" or
 *  "unanswered". `outcome` is "none", or "unknown": what was asked for may have happened. */
export class RequestError extends Error {
  constructor({ name, message = name, code, temporary = false, outcome = "none", retryAfter }) {
    super(message);
    Object.assign(this, { code, name, temporary, outcome, retryAfter });
  }
}

/** Returns a client that connects, and reconnects, until `close()`; `token` may be a function. */
export const connect = (url, options) => new Client(url, options);

class Client {
  state = "connecting"; user = null; onstate = null; onevent = null;
  stats = { received: 0, duplicates: 0, gaps: 0, reconnects: 0 };
  #limits = { message: 2 ** 20, dedupeWindow: 300_000, subscribeBatch: BATCH }; // until `hello`
  #url; #options; #token; #instance = randomId(); #ids = 0; #away = false; #closed = null;
  #socket = null; #generation = 0; #readyAt = 0; #timer; #attempts = 0; #refused = 0; #error = null;
  #answers = new Map(); // by the request's id: who is told
  #channels = new Map(); #sids = new Map(); // subscriptions, by name and by number on this link
  #outbox = new Map(); #lanes = Object.create(null); // requests in order; by channel: its order

  constructor(url, options) {
    this.#url = new URL(url, globalThis.location?.href).href.replace(/^http/, "ws");
    this.#options = { name: "everwire.js", WebSocket: globalThis.WebSocket, ...options };
    globalThis.addEventListener?.("online", () => { // do not wait for the next attempt
      if (!this.#socket && !this.#away) this.#alarm(uniform(0, 1_000), () => this.#open());
    });
    this.#open();
  }
  close() { if (!this.#closed) this.#end({ code: 1000, reason: "by the application" }); }
  /** Drops the link as if it had died, and stays away until `resume()`. */
  cut() { this.#away = true; if (!this.#closed) this.#lost(1006, "cut"); }
  resume() { if (this.#away) this.#open(); }

  // ---- The link. Each socket is a generation; what an older one still calls back is ignored.

  async #open() {
    if (this.#closed) return;
    const generation = ++this.#generation, { token, WebSocket } = this.#options;
    const current = () => generation === this.#generation;
    [this.#away, this.#error] = [false, null];
    enter(this, "connecting");
    this.#alarm(CONNECT_TIMEOUT, () => this.#lost(1006, "not ready in time"));
    try {
      const fresh = await (typeof token === "function" ? token() : token);
      if (!current()) return;
      const socket = new WebSocket(this.#url, ["everwire.v1.json"]);
      [this.#socket, this.#token] = [socket, fresh];
      socket.onmessage = ({ data }) => current() && this.#received(JSON.parse(data));
      socket.onclose = ({ code, reason }) => current() && this.#lost(code, reason);
    } catch (error) {
      if (current()) this.#lost(1006, String(error));
    }
  }
  #authenticate({ limits, pingInterval }) {
    const { credentials, name } = this.#options, client = { instance: this.#instance, name };
    Object.assign(this.#limits, limits, { pingInterval });
    this.#request({ type: "auth", token: this.#token, credentials, client }, (error, payload) => {
      if (error) return; // the server closes, and its code decides
      if (this.user !== null) this.stats.reconnects++;
      [this.#readyAt, this.#refused, this.user] = [Date.now(), 0, payload.user];
      this.#flush();
      enter(this, "ready");
    });
    enter(this, "authenticating");
    this.#subscribe(); // without waiting: the server does it once it knows who we are
  }
  #received(message) {
    const { type, sid, id, requestId } = message, answer = this.#answers.get(requestId);
    this.#answers.delete(requestId);
    if (this.#sids.has(sid)) this.#delivered(this.#sids.get(sid), message);
    else if (type === "response") answer?.(null, message.payload);
    else if (type === "error") answer?.((this.#error = new RequestError(message)));
    else if (type === "event") tell(this.onevent, message.name, message.data);
    else if (type === "ping") this.#send({ type: "pong", time: message.time ?? 0 });
    else if (type === "hello" && this.state === "connecting") this.#authenticate(message);
    else if (type === "drain") {
      this.#alarm(message.reconnectIn, () => this.#lost(4440, "draining", 0));
      enter(this, "draining", message);
    } else if (type === "query" || type === "command")
      this.#send({ type: "error", requestId: id, code: 101, name: "unknown_type", message: "" });
    if (this.state === "ready") this.#watch();
  }
  #watch() { // from the last arrival on
    const limit = this.#limits.pingInterval + PING_GRACE;
    this.#alarm(limit, () => this.#lost(4408, `nothing arrived for ${limit} ms`));
  }
  #lost(code, reason, hint) {
    const detail = { code, reason, error: this.#error };
    if (this.#readyAt && Date.now() - this.#readyAt >= STABLE_AFTER) this.#attempts = 0;
    const failures = this.#attempts++, longest = Math.min(20_000, 500 * 2 ** failures);
    if (code === 4402) this.#refused++; // two tokens in a row refused: so would be a third
    if (isFinal(code) || this.#refused > 1) return this.#end(detail);
    this.#drop();
    detail.retryIn = hint ?? (failures ? uniform(100, longest) : uniform(0, 2_000));
    if (!this.#away) this.#alarm(detail.retryIn, () => this.#open());
    enter(this, "connecting", detail);
    for (const sub of this.#channels.values())
      if (sub.state === "subscribed") enter(sub, "subscribing");
  }
  #end(detail) {
    const { code, reason } = detail, state = code === 1000 ? "unsubscribed" : "failed";
    this.#closed = new RequestError({ name: "closed", code, message: `closed: ${code} ${reason}` });
    this.#drop();
    for (const item of this.#outbox.values()) this.#giveUp(item, this.#closed.message);
    for (const sub of this.#channels.values()) this.#over(sub, state, this.#closed);
    enter(this, "closed", detail);
  }
  #drop() {
    this.#generation++;
    clearTimeout(this.#timer);
    this.#socket?.close(1000);
    [this.#socket, this.#readyAt] = [null, 0];
    this.#answers.clear();
    this.#sids.clear();
    for (const lane of Object.values(this.#lanes)) // what is unanswered goes out as a new run
      Object.assign(lane, { run: lane.run + 1, inFlight: 0, held: 0 });
  }
  #alarm(delay, action) { clearTimeout(this.#timer); this.#timer = after(delay, action); }
  #later(delay, action, generation = this.#generation) { // unless the link is another by then
    after(delay, () => generation === this.#generation && action());
  }
  #send(message) { this.#socket?.send(JSON.stringify(message)); }
  #request(message, answer) {
    this.#answers.set(++this.#ids, answer);
    this.#send({ ...message, id: this.#ids });
  }

  // ---- Channels.

  /** Options: `since`, a position; `presence`; `onmessage`, `ongap`, `onpresence`, `onstate`. What
   *  is returned has a `state`, the `position` of what was handed over last, the `members` who
   *  are present, by connection, and `unsubscribe()`. */
  subscribe(channel, { since = null, presence = false, ...handlers } = {}) {
    if (this.#closed) throw this.#closed;
    if (this.#channels.has(channel)) throw new Error(`already subscribed to ${channel}`);
    const sub = {
      ...handlers, channel, presence, position: since, state: "subscribing", members: new Map(),
      asked: 0, sid: null, // the generation that was asked for it, and what it is called there
      unsubscribe: () => this.#over(sub, "unsubscribed"),
    };
    this.#channels.set(channel, sub);
    this.#subscribe();
    return sub;
  }
  #subscribe() { // to what this link was not asked for yet
    const missing = [...this.#channels.values()].filter((sub) => sub.asked !== this.#generation);
    while (this.state !== "connecting" && missing.length) {
      const subs = missing.splice(0, Math.min(BATCH, this.#limits.subscribeBatch));
      for (const sub of subs) sub.asked = this.#generation;
      const request = ({ channel, presence, position }) => ({ channel, presence, position });
      this.#request({ type: "subscribe", channels: subs.map(request) }, (error, payload) =>
        subs.forEach((sub, n) => this.#result(sub, error ? { error } : payload.subscriptions[n])));
    }
  }
  #result(sub, { error, sid, epoch, offset, id, recovered }) {
    if (sub.asked !== this.#generation) return; // it was left meanwhile
    if (error) return this.#unsubscribed(sub, error);
    this.#sids.set((sub.sid = sid), sub);
    sub.position ??= { epoch, offset, id };
    enter(sub, "subscribed", { recovered });
  }
  #leave(sub) {
    if (sub.asked !== this.#generation) return;
    sub.asked = 0;
    this.#sids.delete(sub.sid);
    this.#request({ type: "unsubscribe", channels: [sub.channel] }, () => {});
  }
  #again(sub) { this.#leave(sub); this.#subscribe(); }
  #over(sub, state, error) {
    if (this.#channels.get(sub.channel) !== sub) return; // it was over already
    this.#channels.delete(sub.channel);
    this.#leave(sub);
    enter(sub, state, error);
  }
  #unsubscribed(sub, error) { // by the server
    const failure = new RequestError({ name: "unsubscribed", ...error });
    if (!error.temporary) return this.#over(sub, "failed", failure);
    this.#later(error.retryAfter ?? uniform(500, 5_000), () => this.#again(sub));
    enter(sub, "subscribing", failure);
  }
  #delivered(sub, message) {
    const { type, offset, id, epoch = sub.position.epoch, channel = sub.channel } = message;
    const at = sub.position.offset, position = { epoch, offset, id };
    if (type === "message") {
      const { prev, time, publisher = null, data, encoding } = message;
      const one = epoch !== ""; // channel; a pattern, as "chat:*", has no positions
      if (one && offset <= at) return this.stats.duplicates++;
      if (one && (prev ?? offset - 1) > at) return this.#again(sub); // a hole: from where we are
      this.stats.received++;
      if (one) sub.position = position; // first: a handler may cut the link
      tell(sub.onmessage, { channel, position, id, time, publisher, data, encoding });
    } else if (type === "gap") {
      this.stats.gaps++;
      sub.position = position;
      tell(sub.ongap, { channel, position, from: message.from ?? null, reason: message.reason });
    } else if (type === "presence") {
      const { full, joined, left, count } = message, { members } = sub;
      if (full) members.clear();
      for (const member of joined) members.set(member.connection, member);
      for (const connection of left) members.delete(connection);
      tell(sub.onpresence, { members, count, joined, left });
    } else if (type === "unsubscribed") this.#unsubscribed(sub, message);
  }

  // ---- The outbox: publishes, queries and commands, in the order of the calls. By its key a
  // command runs once, however often it is sent. An event is sent at most once.

  async publish(channel, data = null, { timeout = 60_000 } = {}) {
    const id = `${this.#instance}-${++this.#ids}`, message = { type: "publish", id, channel, data };
    const { epoch, offset, duplicate = false } = await this.#put(message, timeout);
    return { position: { epoch, offset, id }, duplicate };
  }
  query(name, payload = null, { timeout = 10_000 } = {}) {
    return this.#put({ type: "query", id: ++this.#ids, name, payload }, timeout);
  }
  command(name, payload = null, { timeout = 10_000, key = randomId() } = {}) {
    return this.#put({ type: "command", id: ++this.#ids, name, payload, key }, timeout);
  }
  event(name, data = null) { if (this.#readyAt) this.#send({ type: "event", name, data }); }
  async #put(message, timeout) {
    const { type, id, channel } = message, text = JSON.stringify({ ...message, timeout });
    const { length } = new TextEncoder().encode(text), { message: most } = this.#limits;
    if (this.#closed) throw this.#closed;
    if (length > most) throw new RequestError({ name: "too_big", message: `${length} bytes` });
    if (this.#outbox.size >= OUTBOX) throw new RequestError({ name: "outbox_full" });
    return new Promise((resolve, reject) => {
      const item = { type, id, text, resolve, reject, tries: 0, sent: 0, first: 0 };
      item.timer = after(timeout, () => this.#giveUp(item, `no answer within ${timeout} ms`));
      if (type === "publish") item.lane = this.#lanes[channel] ??= { run: 0, inFlight: 0, held: 0 };
      this.#outbox.set(id, item);
      this.#flush();
    });
  }
  #flush() {
    const now = Date.now(), known = this.#limits.dedupeWindow - DEDUPE_MARGIN;
    for (const item of this.#readyAt ? this.#outbox.values() : []) {
      const { type, id, lane, text } = item, generation = this.#generation;
      if (item.sent === generation || lane?.held) continue;
      const forgotten = item.tries && now - item.first > known; // by the server: its id
      if (forgotten || (type === "query" && item.tries > 1)) {
        this.#giveUp(item, "it may not be sent again");
        continue;
      }
      Object.assign(item, { sent: generation, tries: item.tries + 1, first: item.first || now });
      if (lane) lane.inFlight++;
      this.#answers.set(id, (error, payload) => this.#answered(item, error, payload));
      this.#socket.send(lane ? `${text.slice(0, -1)},"run":${lane.run}}` : text);
    }
  }
  #answered(item, error, payload) {
    const { lane } = item;
    if (lane && (error?.temporary || error?.outcome === "unknown")) { // the next ones are `held`
      item.sent = 0;
      lane.held ||= error.retryAfter || uniform(50, Math.min(5_000, 50 * 2 ** item.tries));
    } else this.#settle(item, error, payload);
    if (!lane || --lane.inFlight || !lane.held) return;
    this.#later(lane.held, () => { // all of the run are answered: now in order, as the next one
      Object.assign(lane, { held: 0, run: lane.run + 1 });
      this.#flush();
    });
  }
  #giveUp(item, message, outcome = item.tries ? "unknown" : "none") {
    this.#settle(item, new RequestError({ name: "unanswered", message, outcome }));
  }
  #settle({ id, timer, resolve, reject }, error, value) {
    clearTimeout(timer);
    this.#outbox.delete(id);
    if (error) reject(error); else resolve(value);
  }
}
