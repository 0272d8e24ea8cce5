"""The hub: who on this node is subscribed to what, and how messages get to them."""
