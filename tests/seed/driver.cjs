// Runs a client class of the pattern document through a scenario; prints what came of it.
// node driver.cjs <clients.cjs> <scenario> <url>: a line "RESULT {json}" at the end.
const [, , clientsPath, scenario, url] = process.argv;
const log = console.log;
console.log = () => {}; // the classes talk
console.warn = () => {};
console.error = () => {};
const WebSocket = require('ws');
const C = require(clientsPath);

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
async function until(condition, what, ms = 15000) {
  const end = Date.now() + ms;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`${what} did not come`);
    await sleep(10);
  }
}
function finish(result) {
  log(`RESULT ${JSON.stringify(result)}`);
  process.exit(0);
}
const said = []; // lines on stdin: what the test wants next
require('readline').createInterface({ input: process.stdin }).on('line', (line) => said.push(line));

// A plain reader beside the class under test.
async function reader(channel) {
  const socket = new WebSocket(url);
  const got = [];
  let confirmed = false;
  socket.on('message', (text) => {
    const message = JSON.parse(text);
    if (message.channel === 'system') confirmed = confirmed || message.data.type === 'subscription_confirm';
    else got.push(message.data);
  });
  await new Promise((resolve) => socket.on('open', resolve));
  socket.send(JSON.stringify({ action: 'subscribe', channel }));
  await until(() => confirmed, 'a confirmation');
  return { got, socket };
}
const publish = (channel, data) => ({ action: 'publish', channel, data });

const scenarios = {
  async pool() {
    const pool = new C.WebSocketConnectionPool(url, 3);
    await until(() => pool.connections.every((one) => one.readyState === 1), 'three connections');
    const answers = [0, 0, 0];
    pool.connections.forEach((one, index) => { one.onmessage = () => { answers[index] += 1; }; });
    const { got } = await reader('pool');
    for (let n = 0; n < 30; n += 1) pool.sendMessage(publish('pool', n));
    await until(() => got.length === 30, '30 messages');
    for (let n = 0; n < 60; n += 1) pool.sendMessage({ type: 'data', payload: 'Hello!' });
    await until(() => answers.every((count) => count === 20), 'an answer to each');
    finish({ got: [...got].sort((a, b) => a - b), open: pool.connections.filter((one) => one.readyState === 1).length });
  },

  async heartbeat() {
    const client = new C.HeartbeatWebSocket(url, 200);
    let pongs = 0;
    const reset = client.resetHeartbeat.bind(client);
    client.resetHeartbeat = () => { pongs += 1; reset(); };
    await sleep(5600); // longer than its pong time-out of 5 s
    finish({ pongs, open: client.connection.readyState === 1 });
  },

  async reconnecting() {
    const client = new C.ReconnectingWebSocket(url, { reconnectInterval: 200, maxReconnectAttempts: 50 });
    let opened = 0;
    client.onopen = () => { opened += 1; };
    await until(() => opened === 1, 'the connection');
    log('KILL');
    await until(() => client.socket.readyState === 3, 'the loss');
    for (let n = 0; n < 5; n += 1) client.send(publish('again', n)); // queued
    log('RESTART');
    await until(() => said.includes('up'), 'the restart');
    const { got } = await reader('again').catch(() => ({ got: [] }));
    await until(() => opened === 2, 'the second connection', 20000);
    for (let n = 5; n < 10; n += 1) client.send(publish('again', n));
    await until(() => got.length === 10 || got.includes(9), 'the messages');
    client.close();
    finish({ opened, got });
  },

  async queued() {
    const { got } = await reader('queue');
    const client = new C.QueuedWebSocket(url);
    for (let n = 0; n < 50; n += 1) client.send(publish('queue', n)); // before it is open
    await until(() => client.connected, 'the connection');
    for (let n = 50; n < 80; n += 1) client.send(publish('queue', n));
    await until(() => got.length >= 80, '80 messages');
    finish({ got, left: client.queue.length });
  },

  async protocol() {
    const client = new C.WebSocketProtocol(url);
    const responses = [];
    const errors = [];
    client.on('response', (payload, message) => responses.push([message.requestId, payload]));
    client.on('error', (payload, message) => errors.push(message.error));
    await until(() => client.socket.readyState === 1, 'the connection');
    await client.authenticate({ user: 'ada', password: 'x' });
    await until(() => responses.length === 1, 'the answer to auth');
    const echo = await client.query('echo', { a: [1, { b: null }] });
    const time = await client.query('time');
    const refused = await client.query('no such thing').catch((error) => error.message);
    const history = await client.query('everwire.history', { channel: 'c' });
    await client.command('echo', { n: 7 });
    await until(() => responses.length === 2, 'the answer to the command');
    await client.publishEvent('clicked', { x: 1 });
    const after = await client.query('echo', 'still here');
    finish({ auth: responses[0][1], echo, time: typeof time, refused, history: history.messages, command: responses[1][1], after, errors, pending: client.pendingRequests.size });
  },

  // Each promise is settled by the server, long before the class' own 10 seconds.
  async refusals() {
    const client = new C.WebSocketProtocol(url);
    await until(() => client.socket.readyState === 1, 'the connection');
    const ask = (...query) => client.query(...query).then((value) => ({ value }), (error) => ({ refused: error.message }));
    const began = Date.now();
    const good = { items: [{ name: 'a', price: 1.5 }, { name: 'b', price: 2 }] };
    const [total, wrong, missing, unknown, nowhere, secrets, slow, broken, large] = await Promise.all([
      ask('total', good),
      ask('total', { items: [{ name: 'a', price: 1 }, { name: 'b', price: 'two' }] }),
      ask('total', {}),
      ask('total', { ...good, coupon: 1 }),
      ask('no such resource', {}),
      ask('secrets', {}),
      ask('slow', {}),
      ask('broken', {}),
      ask('large', {}),
    ]);
    const after = await ask('total', good);
    finish({ total, wrong, missing, unknown, nowhere, secrets, slow, broken, large, after, quick: Date.now() - began < 5000, pending: client.pendingRequests.size });
  },

  async channels() {
    const client = new C.ChannelWebSocket(url);
    const system = [];
    const handle = client.handleSystemMessage.bind(client);
    client.handleSystemMessage = (data) => { system.push(data); handle(data); };
    await until(() => client.socket.readyState === 1, 'the connection');
    const got = [];
    const handleSubscription = client.subscribe('news', (data) => got.push(data));
    const other = [];
    client.subscribe('other', (data) => other.push(data));
    await until(() => system.length === 2, 'two confirmations');
    client.publish('news', { n: 1 });
    await until(() => got.length === 1, 'its own message');
    client.publish('elsewhere', { n: 99 });
    client.publish('system', { n: 98 });
    await until(() => system.some((data) => data.type === 'error'), 'the refusal of a reserved channel');
    log('KILL');
    await until(() => client.socket.readyState === 3, 'the loss');
    log('RESTART');
    await until(() => said.includes('up'), 'the restart');
    const confirmed = system.length;
    await until(() => system.length >= confirmed + 2, 'the confirmations after the reconnection', 20000);
    client.publish('news', { n: 2 });
    client.publish('other', { n: 3 });
    await until(() => got.length === 2 && other.length === 1, 'messages after the reconnection');
    handleSubscription.unsubscribe();
    await until(() => system.some((data) => data.type === 'unsubscription_confirm'), 'the end of the subscription');
    client.publish('news', { n: 4 });
    client.publish('other', { n: 5 });
    await until(() => other.length === 2, 'the other channel');
    finish({ got, other, errors: system.filter((data) => data.type === 'error').map((data) => data.code) });
  },
};

scenarios[scenario]().catch((error) => {
  log(`RESULT ${JSON.stringify({ failed: String(error) })}`);
  process.exit(1);
});
