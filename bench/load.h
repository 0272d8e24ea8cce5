/* What the parts of the load generator share: connections, dialects, settings. */
#ifndef LOAD_H
#define LOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "frames.h"

enum role { SUBSCRIBER, PUBLISHER };
enum phase { CONNECTING, HANDSHAKE, OPENING, READY, GONE };

struct conn {
	int fd;
	uint8_t role, phase;
	bool waits_to_write; /* the kernel took less than we had */
	bool dirty;          /* listed to be flushed at the end of the turn */
	bool subscribed;     /* answered; with recovery it is not READY until all has come */
	uint32_t index;      /* its number among those of its role */
	uint32_t channel;
	uint32_t received; /* recovered messages so far */
	uint64_t begun;    /* ns, when it began to connect */
	struct buffer in, out, stream;
};

struct settings {
	const char *host, *path, *token, *channel, *subprotocol;
	char epoch[64]; /* recovery starts at the beginning of this epoch */
	int port;
	uint32_t subscribers, publishers, channels, window, size, recover;
	uint32_t header_bytes, concurrency, rate;
	uint64_t count;
	double seconds, warmup, timeout;
	bool subscribe_apart;
};
extern struct settings set;

/* How a server wants to be spoken to. */
struct dialect {
	const char *name;
	const char *subprotocol;
	const char *path; /* default; a %s is the channel's name */
	const char *publisher_path;
	uint8_t opcode;
	bool acknowledges;
	/* The WebSocket is open: say hello, authenticate, subscribe. */
	void (*open)(struct conn *conn);
	/* A whole message came. */
	void (*message)(struct conn *conn, uint8_t *payload, size_t size);
	/* Send the message with this number. */
	void (*publish)(struct conn *conn, uint32_t channel, uint32_t number);
};
extern const struct dialect *dialect;
const struct dialect *find_dialect(const char *name);

/* ---- what dialects call ---- */

void send_frame(struct conn *conn, uint8_t opcode, const void *payload, size_t size);
/* Authenticated, and subscribed if it is a subscriber. */
void on_ready(struct conn *conn);
/* A channel's message; our own payload is somewhere inside. */
void on_delivery(struct conn *conn, const uint8_t *text, size_t size);
void on_acknowledged(struct conn *conn, uint32_t number, bool duplicate);
void on_refused(struct conn *conn, const uint8_t *text, size_t size);
/* The peer's heartbeat was answered. */
void on_heartbeat(void);
/* Where numbering begins, from the answer to a subscription. */
void on_epoch(const char *epoch, size_t size);
/* `set.size` bytes of ASCII: a mark, the number, the publisher, filling. */
void put_payload(struct buffer *to, uint32_t publisher, uint32_t number);
void put_channel(struct buffer *to, uint32_t channel);

#endif
