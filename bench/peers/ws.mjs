// A stock broadcast server on `ws`, in the plain dialect: node ws.mjs PORT
import { WebSocketServer } from "ws";

const channels = new Map();
const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]), backlog: 4096 });

server.on("connection", (socket) => {
  const mine = new Set();
  socket.on("error", () => {});
  socket.on("close", () => {
    for (const name of mine) channels.get(name)?.delete(socket);
  });
  socket.on("message", (text) => {
    const message = JSON.parse(text);
    if (message.action === "subscribe") {
      const { channel } = message;
      mine.add(channel);
      if (!channels.has(channel)) channels.set(channel, new Set());
      channels.get(channel).add(socket);
      const data = { type: "subscription_confirm", channel };
      socket.send(JSON.stringify({ channel: "system", data }));
    } else if (message.action === "publish") {
      const text = JSON.stringify({ channel: message.channel, data: message.data });
      for (const one of channels.get(message.channel) ?? []) one.send(text);
    }
  });
});
server.on("listening", () => console.log("listening"));
