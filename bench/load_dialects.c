/*
 * How each server wants to be spoken to. Reading is as lazy as it can be: the generator must
 * cost less than the servers, so answers are recognised by their first bytes, and deliveries
 * by the mark inside our own payload.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "load.h"

static struct buffer scratch;
static char instance[24]; /* 12 characters, new at each start; the publisher's number makes 16 */

static void put_text(struct buffer *to, const char *text)
{
	buffer_add(to, text, strlen(text));
}

static void put_number(struct buffer *to, uint64_t number)
{
	char digits[24];
	buffer_add(to, digits, (size_t)snprintf(digits, sizeof digits, "%llu",
						(unsigned long long)number));
}

static bool begins(const uint8_t *text, size_t size, const char *with)
{
	size_t length = strlen(with);
	return size >= length && memcmp(text, with, length) == 0;
}

static const uint8_t *find(const uint8_t *text, size_t size, const char *what)
{
	return memmem(text, size, what, strlen(what));
}

/* The number at the end of an id: what stands behind its last '-'. */
static uint32_t id_number(const uint8_t *id, size_t size)
{
	uint32_t number = 0, scale = 1;
	while (size && id[size - 1] >= '0' && id[size - 1] <= '9') {
		number += (uint32_t)(id[--size] - '0') * scale;
		scale *= 10;
	}
	return number;
}

static void put_id(struct buffer *to, uint32_t publisher, uint32_t number)
{
	char id[48];
	buffer_add(to, id, (size_t)snprintf(id, sizeof id, "%s%04u-%u", instance,
					    publisher % 10000, number));
}

/* ---- plain: the JSON that needs no authentication; also our small peers' -------------- */

static void plain_open(struct conn *conn)
{
	if (conn->role == PUBLISHER) {
		on_ready(conn);
		return;
	}
	scratch.size = 0;
	put_text(&scratch, "{\"action\":\"subscribe\",\"channel\":\"");
	put_channel(&scratch, conn->channel);
	put_text(&scratch, "\"}");
	send_frame(conn, TEXT, scratch.data, scratch.size);
}

static void plain_message(struct conn *conn, uint8_t *payload, size_t size)
{
	if (!begins(payload, size, "{\"channel\":\"system\"")) {
		on_delivery(conn, payload, size);
	} else if (find(payload, size, "\"subscription_confirm\"")) {
		on_ready(conn);
	} else {
		on_refused(conn, payload, size);
	}
}

static void plain_publish(struct conn *conn, uint32_t channel, uint32_t number)
{
	scratch.size = 0;
	put_text(&scratch, "{\"action\":\"publish\",\"channel\":\"");
	put_channel(&scratch, channel);
	put_text(&scratch, "\",\"data\":\"");
	put_payload(&scratch, conn->index, number);
	put_text(&scratch, "\"}");
	send_frame(conn, TEXT, scratch.data, scratch.size);
}

/* ---- everwire.v1.json ------------------------------------------------------------------ */

static void json_channels(struct buffer *to, uint32_t channel)
{
	put_text(to, "[{\"channel\":\"");
	put_channel(to, channel);
	put_text(to, "\"");
	if (set.epoch[0]) {
		put_text(to, ",\"position\":{\"epoch\":\"");
		put_text(to, set.epoch);
		put_text(to, "\",\"offset\":0,\"id\":\"\"}");
	}
	put_text(to, "}]");
}

static void json_open(struct conn *conn)
{
	bool subscribes = conn->role == SUBSCRIBER;
	scratch.size = 0;
	put_text(&scratch, "{\"type\":\"auth\",\"id\":1,");
	if (set.token) {
		put_text(&scratch, "\"token\":\"");
		put_text(&scratch, set.token);
		put_text(&scratch, "\",");
	}
	put_text(&scratch, "\"client\":{\"instance\":\"");
	put_text(&scratch, instance);
	put_text(&scratch, "\"}");
	if (subscribes && !set.subscribe_apart) {
		put_text(&scratch, ",\"subscribe\":");
		json_channels(&scratch, conn->channel);
	}
	put_text(&scratch, "}");
	send_frame(conn, TEXT, scratch.data, scratch.size);
	if (subscribes && set.subscribe_apart) {
		scratch.size = 0;
		put_text(&scratch, "{\"type\":\"subscribe\",\"id\":2,\"channels\":");
		json_channels(&scratch, conn->channel);
		put_text(&scratch, "}");
		send_frame(conn, TEXT, scratch.data, scratch.size);
	}
}

/* The answer to `auth` (1) or `subscribe` (2). */
static void v1_answered(struct conn *conn, uint32_t id, const uint8_t *payload, size_t size)
{
	if (find(payload, size, "error") ||
	    (set.epoch[0] && id && find(payload, size, "recovered\":false"))) {
		on_refused(conn, payload, size);
		return;
	}
	if (conn->role == SUBSCRIBER && set.subscribe_apart && id == 1)
		return;
	on_ready(conn);
}

#define JSON_RESPONSE "{\"type\":\"response\",\"requestId\":"

static void json_answered(struct conn *conn, const uint8_t *payload, size_t size)
{
	const uint8_t *id = payload + strlen(JSON_RESPONSE), *end = payload + size;
	if (*id == '"') { /* a publish; ours to auth and subscribe are small numbers */
		const uint8_t *quote = memchr(id + 1, '"', (size_t)(end - id - 1));
		if (quote)
			on_acknowledged(conn, id_number(id + 1, (size_t)(quote - id - 1)),
					find(quote, (size_t)(end - quote), "\"duplicate\":true"));
		return;
	}
	const uint8_t *epoch = find(payload, size, "\"epoch\":\"");
	if (epoch) {
		epoch += 9;
		const uint8_t *quote = memchr(epoch, '"', (size_t)(end - epoch));
		on_epoch((const char *)epoch, quote ? (size_t)(quote - epoch) : 0);
	}
	v1_answered(conn, (uint32_t)(*id - '0'), payload, size);
}

static void json_message(struct conn *conn, uint8_t *payload, size_t size)
{
	if (begins(payload, size, "{\"type\":\"message\"")) {
		on_delivery(conn, payload, size);
	} else if (begins(payload, size, JSON_RESPONSE)) {
		json_answered(conn, payload, size);
	} else if (begins(payload, size, "{\"type\":\"ping\"")) {
		payload[10] = 'o';
		send_frame(conn, TEXT, payload, size);
		on_heartbeat();
	} else if (!begins(payload, size, "{\"type\":\"hello\"")) {
		on_refused(conn, payload, size);
	}
}

static void json_publish(struct conn *conn, uint32_t channel, uint32_t number)
{
	scratch.size = 0;
	put_text(&scratch, "{\"type\":\"publish\",\"id\":\"");
	put_id(&scratch, conn->index, number);
	put_text(&scratch, "\",\"channel\":\"");
	put_channel(&scratch, channel);
	put_text(&scratch, "\",\"data\":\"");
	put_payload(&scratch, conn->index, number);
	put_text(&scratch, "\"}");
	send_frame(conn, TEXT, scratch.data, scratch.size);
}

/* ---- everwire.v1.msgpack --------------------------------------------------------------- */

/* Where a text's size belongs is known before its text is: fill it in behind it. */
static size_t pack_text_begin(struct buffer *to)
{
	buffer_add(to, "\xd9\x00", 2);
	return to->size;
}

static void pack_text_end(struct buffer *to, size_t begin)
{
	size_t size = to->size - begin;
	if (size < 32) { /* the short form, as every encoder writes it */
		memmove(to->data + begin - 1, to->data + begin, size);
		to->data[begin - 2] = 0xa0 | (uint8_t)size;
		to->size--;
	} else if (size < 256) {
		to->data[begin - 1] = (uint8_t)size;
	} else {
		buffer_room(to, 1);
		memmove(to->data + begin + 1, to->data + begin, size);
		to->data[begin - 2] = 0xda;
		to->data[begin - 1] = (uint8_t)(size >> 8);
		to->data[begin] = (uint8_t)size;
		to->size++;
	}
}

static void pack_text(struct buffer *to, const char *text)
{
	size_t begin = pack_text_begin(to);
	put_text(to, text);
	pack_text_end(to, begin);
}

static void pack_channel(struct buffer *to, uint32_t channel)
{
	size_t begin = pack_text_begin(to);
	put_channel(to, channel);
	pack_text_end(to, begin);
}

static void pack_channels(struct buffer *to, uint32_t channel)
{
	put_text(to, set.epoch[0] ? "\x91\x82" : "\x91\x81");
	pack_text(to, "channel");
	pack_channel(to, channel);
	if (set.epoch[0]) {
		pack_text(to, "position");
		put_text(to, "\x83");
		pack_text(to, "epoch");
		pack_text(to, set.epoch);
		pack_text(to, "offset");
		buffer_add(to, "\0", 1);
		pack_text(to, "id");
		pack_text(to, "");
	}
}

static void msgpack_open(struct conn *conn)
{
	bool subscribes = conn->role == SUBSCRIBER;
	scratch.size = 0;
	put_text(&scratch, "\x98\x01\x01");
	if (set.token)
		pack_text(&scratch, set.token);
	else
		put_text(&scratch, "\xc0");
	put_text(&scratch, "\xc0\x81");
	pack_text(&scratch, "instance");
	pack_text(&scratch, instance);
	put_text(&scratch, "\xc0\x90");
	if (subscribes && !set.subscribe_apart)
		pack_channels(&scratch, conn->channel);
	else
		put_text(&scratch, "\x90");
	send_frame(conn, BINARY, scratch.data, scratch.size);
	if (subscribes && set.subscribe_apart) {
		scratch.size = 0;
		put_text(&scratch, "\x93\x02\x02");
		pack_channels(&scratch, conn->channel);
		send_frame(conn, BINARY, scratch.data, scratch.size);
	}
}

enum { TAG_HELLO = 0, TAG_MESSAGE = 5, TAG_RESPONSE = 15, TAG_PING = 17, TAG_PONG = 18 };

static void msgpack_message(struct conn *conn, uint8_t *payload, size_t size)
{
	if (size < 3) {
		on_refused(conn, payload, size);
		return;
	}
	uint8_t tag = payload[1];
	if (tag == TAG_MESSAGE) {
		on_delivery(conn, payload, size);
	} else if (tag == TAG_RESPONSE) {
		uint8_t *id = payload + 2;
		size_t length = 0;
		if ((*id & 0xe0) == 0xa0)
			length = *id++ & 0x1f;
		else if (*id == 0xd9)
			length = id[1], id += 2;
		if (length) {
			uint8_t *rest = id + length;
			const uint8_t *flag = find(rest, size - (size_t)(rest - payload),
						   "\xa9" "duplicate");
			on_acknowledged(conn, id_number(id, length), flag && flag[10] == 0xc3);
			return;
		}
		const uint8_t *epoch = find(payload, size, "\xa5" "epoch");
		if (epoch && (epoch[6] & 0xe0) == 0xa0)
			on_epoch((const char *)epoch + 7, epoch[6] & 0x1f);
		if (set.epoch[0] && find(payload, size, "\xa9" "recovered\xc2"))
			on_refused(conn, payload, size);
		else
			v1_answered(conn, *id, payload, size);
	} else if (tag == TAG_PING) {
		payload[1] = TAG_PONG;
		send_frame(conn, BINARY, payload, size);
		on_heartbeat();
	} else if (tag != TAG_HELLO) {
		on_refused(conn, payload, size);
	}
}

static void msgpack_publish(struct conn *conn, uint32_t channel, uint32_t number)
{
	scratch.size = 0;
	put_text(&scratch, "\x97\x04");
	size_t begin = pack_text_begin(&scratch);
	put_id(&scratch, conn->index, number);
	pack_text_end(&scratch, begin);
	pack_channel(&scratch, channel);
	begin = pack_text_begin(&scratch);
	put_payload(&scratch, conn->index, number);
	pack_text_end(&scratch, begin);
	buffer_add(&scratch, "\xc0\0\xc0", 3);
	send_frame(conn, BINARY, scratch.data, scratch.size);
}

/* ---- NATS' own protocol, in WebSocket frames --------------------------------------------- */

static void nats_open(struct conn *conn)
{
	scratch.size = 0;
	put_text(&scratch, "CONNECT {\"verbose\":false,\"pedantic\":false,\"protocol\":1}\r\n");
	if (conn->role == SUBSCRIBER) {
		put_text(&scratch, "SUB ");
		put_channel(&scratch, conn->channel);
		put_text(&scratch, " 1\r\n");
	}
	put_text(&scratch, "PING\r\n"); /* its PONG tells that the rest was done */
	send_frame(conn, BINARY, scratch.data, scratch.size);
}

/* What came is a stream: a frame may hold many messages, or the middle of one. */
static void nats_message(struct conn *conn, uint8_t *payload, size_t size)
{
	struct buffer *stream = &conn->stream;
	if (stream->size) {
		buffer_add(stream, payload, size);
		payload = stream->data;
		size = stream->size;
	}
	size_t at = 0;
	for (;;) {
		uint8_t *line = payload + at;
		uint8_t *end = memchr(line, '\n', size - at);
		if (!end)
			break;
		size_t length = (size_t)(end + 1 - line);
		if (begins(line, length, "MSG ")) {
			uint32_t body = id_number(line, length - 2);
			if (size - at < length + body + 2)
				break;
			on_delivery(conn, line + length, body);
			length += body + 2;
		} else if (begins(line, length, "PING")) {
			send_frame(conn, BINARY, "PONG\r\n", 6);
			on_heartbeat();
		} else if (begins(line, length, "PONG")) {
			on_ready(conn);
		} else if (begins(line, length, "-ERR")) {
			on_refused(conn, line, length);
		}
		at += length;
	}
	size_t left = size - at;
	if (stream->size) {
		memmove(stream->data, stream->data + at, left);
		stream->size = left;
	} else if (left) {
		buffer_add(stream, payload + at, left);
	}
}

static void nats_publish(struct conn *conn, uint32_t channel, uint32_t number)
{
	scratch.size = 0;
	put_text(&scratch, "PUB ");
	put_channel(&scratch, channel);
	put_text(&scratch, " ");
	put_number(&scratch, set.size);
	put_text(&scratch, "\r\n");
	put_payload(&scratch, conn->index, number);
	put_text(&scratch, "\r\n");
	send_frame(conn, BINARY, scratch.data, scratch.size);
}

/* ---- nchan: the URL says it all ------------------------------------------------------------ */

static void nchan_message(struct conn *conn, uint8_t *payload, size_t size)
{
	if (conn->role == SUBSCRIBER) /* a publisher is sent statistics */
		on_delivery(conn, payload, size);
}

static void nchan_publish(struct conn *conn, uint32_t channel, uint32_t number)
{
	(void)channel; /* the URL's */
	scratch.size = 0;
	put_payload(&scratch, conn->index, number);
	send_frame(conn, TEXT, scratch.data, scratch.size);
}

/* ---- Socket.IO 4 over the WebSocket transport of Engine.IO 4 -------------------------------- */

static void socketio_open(struct conn *conn)
{
	send_frame(conn, TEXT, "40", 2);
}

static void socketio_message(struct conn *conn, uint8_t *payload, size_t size)
{
	if (begins(payload, size, "42")) {
		on_delivery(conn, payload, size);
	} else if (begins(payload, size, "40{")) {
		if (conn->role == PUBLISHER) {
			on_ready(conn);
			return;
		}
		scratch.size = 0;
		put_text(&scratch, "420[\"subscribe\",\"");
		put_channel(&scratch, conn->channel);
		put_text(&scratch, "\"]");
		send_frame(conn, TEXT, scratch.data, scratch.size);
	} else if (begins(payload, size, "430")) {
		on_ready(conn);
	} else if (begins(payload, size, "2")) {
		send_frame(conn, TEXT, "3", 1);
		on_heartbeat();
	} else if (!begins(payload, size, "0{")) {
		on_refused(conn, payload, size);
	}
}

static void socketio_publish(struct conn *conn, uint32_t channel, uint32_t number)
{
	scratch.size = 0;
	put_text(&scratch, "42[\"publish\",\"");
	put_channel(&scratch, channel);
	put_text(&scratch, "\",\"");
	put_payload(&scratch, conn->index, number);
	put_text(&scratch, "\"]");
	send_frame(conn, TEXT, scratch.data, scratch.size);
}

static const struct dialect dialects[] = {
	{"plain", NULL, "/", "/", TEXT, false, plain_open, plain_message, plain_publish},
	{"json", "everwire.v1.json", "/", "/", TEXT, true, json_open, json_message, json_publish},
	{"msgpack", "everwire.v1.msgpack", "/", "/", BINARY, true, msgpack_open, msgpack_message,
	 msgpack_publish},
	{"nats", NULL, "/", "/", BINARY, false, nats_open, nats_message, nats_publish},
	{"nchan", NULL, "/sub?id=%s", "/pub?id=%s", TEXT, false, on_ready, nchan_message,
	 nchan_publish},
	{"socketio", NULL, "/socket.io/?EIO=4&transport=websocket",
	 "/socket.io/?EIO=4&transport=websocket", TEXT, false, socketio_open, socketio_message,
	 socketio_publish},
};

const struct dialect *find_dialect(const char *name)
{
	struct timespec time;
	clock_gettime(CLOCK_REALTIME, &time);
	snprintf(instance, sizeof instance, "%06lx%06lx", (unsigned long)time.tv_sec & 0xffffff,
		 (unsigned long)time.tv_nsec >> 6 & 0xffffff);
	for (size_t i = 0; i < sizeof dialects / sizeof *dialects; i++)
		if (strcmp(dialects[i].name, name) == 0)
			return &dialects[i];
	return NULL;
}
