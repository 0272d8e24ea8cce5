// A server of the npm package ws: echoes, answers {"type":"ping"}, and does what "!..." says.
const { WebSocketServer } = require('ws');

const server = new WebSocketServer({ host: '127.0.0.1', port: Number(process.argv[2]) });
server.on('listening', () => console.log('up'));
server.on('connection', (ws) => {
  ws.on('message', (data, isBinary) => {
    const text = isBinary ? '' : data.toString();
    if (text === '{"type":"ping"}') ws.send('{"type":"pong"}');
    else if (text === '!close') ws.close(1012, 'restart');
    else if (text === '!terminate') ws.terminate();
    else if (text.startsWith('!flood ')) {
      for (let n = 0; n < Number(text.slice(7)); n++) ws.send(`${n}`.padEnd(1000));
    } else ws.send(data, { binary: isBinary });
  });
  ws.on('error', () => {});
});
