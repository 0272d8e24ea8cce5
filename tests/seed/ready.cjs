// Has the document's server listen when its Redis is there, and not before: a client that
// subscribes earlier makes its library give that connection up, and nobody hears anything again.
const net = require('node:net');
const Redis = require('ioredis');

const CONNECTIONS = 2;
const { emit } = Redis.prototype;
const { listen } = net.Server.prototype;
let ready = 0;
let begin = () => {};

Redis.prototype.emit = function (event, ...rest) {
  const heard = emit.call(this, event, ...rest);
  if (event === 'ready' && ++ready === CONNECTIONS) begin();
  return heard;
};

net.Server.prototype.listen = function (...args) {
  begin = () => listen.apply(this, args);
  if (ready >= CONNECTIONS) begin();
  return this;
};
