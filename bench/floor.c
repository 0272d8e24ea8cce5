/*
 * The floor: what the kernel asks of any server for the same exchange. One epoll, no
 * protocol beyond what the generator needs to see, no history, no de-duplication, no limits;
 * subscribers are never taken out. What it writes has the bytes that Everwire writes.
 *
 *   plain      {"action":"publish","channel":C,"data":D} → {"channel":C,"data":D} to everybody
 *              who subscribed to anything
 *   v1.msgpack publish → an acknowledgement, and one message to the channel's subscriber;
 *              a channel is the number at the end of its name
 *
 * What arrives within one epoll_wait is joined: one send for each socket.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "frames.h"

enum {
	FILES = 65536,
	CHANNELS = 65536,
	EVENTS = 1024,
	READ_SIZE = 256 * 1024,
	SOCKET_BUFFER = 64 * 1024, /* as Everwire's */
	BACKLOG = 4096,
};

struct conn {
	int open, dirty;
	struct buffer in, out;
};

static struct conn conns[FILES];
static int everybody[FILES], everybody_count; /* plain: who subscribed */
static int subscriber[CHANNELS];	      /* msgpack: of each channel; 0 is nobody */
static uint32_t offsets[CHANNELS];
static int dirty[FILES], dirty_count;
static struct buffer broadcast; /* what this turn sends to everybody */
static int poll_fd;

static void die(const char *what)
{
	fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void drop(int fd)
{
	if (!conns[fd].open)
		return;
	close(fd);
	buffer_free(&conns[fd].in);
	buffer_free(&conns[fd].out);
	conns[fd] = (struct conn){0};
	for (int i = 0; i < everybody_count; i++)
		if (everybody[i] == fd)
			everybody[i--] = everybody[--everybody_count];
}

static void send_all(int fd, const struct buffer *data)
{
	ssize_t sent = send(fd, data->data, data->size, MSG_NOSIGNAL);
	if (sent == (ssize_t)data->size)
		return;
	if (sent < 0 && (errno == EPIPE || errno == ECONNRESET))
		return; /* reading will tell */
	die("a subscriber does not keep up");
}

static struct buffer *out_of(int fd)
{
	if (!conns[fd].dirty) {
		conns[fd].dirty = 1;
		dirty[dirty_count++] = fd;
	}
	return &conns[fd].out;
}

static void add_frame(struct buffer *to, uint8_t opcode, const void *payload, size_t size)
{
	uint8_t *at = buffer_room(to, size + 10);
	size_t head = frame_header(at, opcode, size, NULL);
	memcpy(at + head, payload, size);
	to->size += head + size;
}

/* ---- plain ---- */

static void on_text(int fd, uint8_t *payload, size_t size)
{
	static const char subscribe[] = "{\"action\":\"subscribe\"";
	static const char publish[] = "{\"action\":\"publish\",";
	static const char confirm[] =
		"{\"channel\":\"system\",\"data\":{\"type\":\"subscription_confirm\",\"channel\":\"c\"}}";
	if (size > sizeof subscribe && memcmp(payload, subscribe, sizeof subscribe - 1) == 0) {
		everybody[everybody_count++] = fd;
		add_frame(out_of(fd), TEXT, confirm, sizeof confirm - 1);
	} else if (size > sizeof publish && memcmp(payload, publish, sizeof publish - 1) == 0) {
		size_t skip = sizeof publish - 2; /* the comma becomes the brace */
		payload[skip] = '{';
		add_frame(&broadcast, TEXT, payload + skip, size - skip);
	}
}

/* ---- v1.msgpack: only as load.c writes it ---- */

static uint8_t *put(uint8_t *to, const void *bytes, size_t size)
{
	memcpy(to, bytes, size);
	return to + size;
}

#define PUT(to, text) put(to, text, sizeof text - 1)

static uint8_t *put32(uint8_t *to, uint32_t number)
{
	*to++ = 0xce;
	number = htonl(number);
	return put(to, &number, 4);
}

/* Step over a text or nil; `text` and `length` say where it was. */
static uint8_t *take_text(uint8_t *at, uint8_t **text, size_t *length)
{
	*length = 0;
	if (*at == 0xd9) {
		*length = at[1];
		at++;
	} else if (*at == 0xda) {
		*length = (size_t)at[1] << 8 | at[2];
		at += 2;
	} else if ((*at & 0xe0) == 0xa0) {
		*length = *at & 0x1f;
	}
	*text = at + 1;
	return at + 1 + *length;
}

static uint32_t channel_number(const uint8_t *name, size_t length)
{
	uint32_t number = 0;
	for (size_t i = length < 5 ? 0 : length - 5; i < length; i++)
		number = number * 10 + (uint32_t)(name[i] - '0');
	return number % CHANNELS;
}

static void on_publish(int fd, uint8_t *at, uint64_t now_ms)
{
	uint8_t *id, *name, *data;
	size_t id_size, name_size, data_size;
	uint8_t *id_begin = at;
	at = take_text(at, &id, &id_size);
	size_t whole_id = (size_t)(at - id_begin);
	at = take_text(at, &name, &name_size);
	uint8_t *data_begin = at;
	at = take_text(at, &data, &data_size);
	uint32_t channel = channel_number(name, name_size), offset = ++offsets[channel];

	uint8_t answer[256], *end = PUT(answer, "\x95\x0f");
	end = put(end, id_begin, whole_id);
	end = PUT(end, "\x83\xa5" "epoch\xb0" "0123456789abcdef" "\xa6" "offset");
	end = put32(end, offset);
	end = PUT(end, "\xa9" "duplicate\xc2\xc2\xc0");
	add_frame(out_of(fd), BINARY, answer, (size_t)(end - answer));

	if (!subscriber[channel])
		return;
	uint8_t message[512];
	end = PUT(message, "\x96\x05");
	end = put32(end, channel);
	end = put32(end, offset);
	end = put(end, id_begin, whole_id);
	*end++ = 0xcf;
	for (int shift = 56; shift >= 0; shift -= 8)
		*end++ = (uint8_t)(now_ms >> shift);
	end = put(end, data_begin, (size_t)(at - data_begin));
	add_frame(out_of(subscriber[channel]), BINARY, message, (size_t)(end - message));
}

static void on_auth(int fd, uint8_t *payload, size_t size)
{
	static const char answer[] = "\x95\x0f\x01\x80\xc2\xc0";
	/* The channel to subscribe to, if any, is the last thing: {"channel": C}. */
	uint8_t *name = memmem(payload, size, "\xa7" "channel", 8), *text;
	size_t length;
	if (name) {
		take_text(name + 8, &text, &length);
		subscriber[channel_number(text, length)] = fd;
	}
	add_frame(out_of(fd), BINARY, answer, sizeof answer - 1);
}

/* ---- connections ---- */

static size_t consume(int fd, uint8_t *data, size_t size, uint64_t now_ms)
{
	size_t at = 0;
	if (conns[fd].open == 1) {
		uint8_t *end = memmem(data, size, "\r\n\r\n", 4);
		if (!end)
			return 0;
		at = (size_t)(end + 4 - data);
		char answer[256];
		const char *v1 = memmem(data, size, "everwire.v1.msgpack", 19);
		int length = snprintf(answer, sizeof answer,
				      "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
				      "Connection: Upgrade\r\n"
				      "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n%s\r\n",
				      v1 ? "Sec-WebSocket-Protocol: everwire.v1.msgpack\r\n" : "");
		buffer_add(out_of(fd), answer, (size_t)length);
		conns[fd].open = 2;
	}
	struct frame frame;
	while (frame_at(data + at, size - at, &frame)) {
		at += frame.whole;
		if (frame.opcode == TEXT)
			on_text(fd, frame.payload, frame.size);
		else if (frame.opcode == BINARY && frame.size > 2 && frame.payload[1] == 4)
			on_publish(fd, frame.payload + 2, now_ms);
		else if (frame.opcode == BINARY && frame.size > 2 && frame.payload[1] == 1)
			on_auth(fd, frame.payload, frame.size);
	}
	return at;
}

static void readable(int fd, uint64_t now_ms)
{
	static uint8_t shared[READ_SIZE * 2];
	struct conn *conn = &conns[fd];
	size_t kept = conn->in.size;
	if (kept)
		memcpy(shared, conn->in.data, kept);
	ssize_t got = recv(fd, shared + kept, READ_SIZE, 0);
	if (got < 0 && errno == EAGAIN)
		return;
	if (got <= 0 || kept > READ_SIZE) {
		drop(fd);
		return;
	}
	size_t size = kept + (size_t)got, used = consume(fd, shared, size, now_ms);
	conn->in.size = 0;
	if (used < size)
		buffer_add(&conn->in, shared + used, size - used);
}

static void accept_all(int listener)
{
	int fd;
	while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		if (fd >= FILES)
			die("too many connections");
		int on = 1;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
		if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event))
			die("epoll_ctl");
		conns[fd].open = 1;
	}
}

static int listen_on(int port)
{
	int on = 1, size = SOCKET_BUFFER;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
	setsockopt(listener, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
	if (bind(listener, (struct sockaddr *)&address, sizeof address) ||
	    listen(listener, BACKLOG))
		die("listen");
	return listener;
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: floor PORT\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	int listener = listen_on(atoi(argv[1]));
	poll_fd = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
	epoll_ctl(poll_fd, EPOLL_CTL_ADD, listener, &event);
	printf("floor: listening on %s\n", argv[1]);
	fflush(stdout);

	static struct epoll_event events[EVENTS];
	for (;;) {
		int count = epoll_wait(poll_fd, events, EVENTS, -1);
		struct timespec time;
		clock_gettime(CLOCK_REALTIME, &time);
		uint64_t now_ms = (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
		for (int i = 0; i < count; i++) {
			int fd = events[i].data.fd;
			if (fd == listener)
				accept_all(listener);
			else if (conns[fd].open)
				readable(fd, now_ms);
		}
		for (int i = 0; i < dirty_count; i++) {
			struct conn *conn = &conns[dirty[i]];
			if (conn->open && conn->out.size)
				send_all(dirty[i], &conn->out);
			conn->out.size = 0;
			conn->dirty = 0;
		}
		dirty_count = 0;
		if (broadcast.size) {
			for (int i = 0; i < everybody_count; i++)
				send_all(everybody[i], &broadcast);
			broadcast.size = 0;
		}
	}
}
