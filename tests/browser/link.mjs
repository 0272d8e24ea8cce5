/** A WebSocket of node that is dropped as a dead link is: closed by the client, it just ends. */
import { WebSocket } from "ws";

export class Link extends WebSocket {
  constructor(...args) {
    super(...args);
    this.on("error", () => {}); // a close follows and says more
  }
  close() { this.terminate(); }
}
