// A stock broadcast server on Socket.IO, rooms for channels: node socketio.mjs PORT
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
const server = new Server(http, { transports: ["websocket"], serveClient: false });

server.on("connection", (socket) => {
  socket.on("subscribe", (channel, done) => {
    socket.join(channel);
    done();
  });
  socket.on("publish", (channel, data) => server.to(channel).emit("message", channel, data));
});
http.listen(Number(process.argv[2]), "127.0.0.1", 4096, () => console.log("listening"));
