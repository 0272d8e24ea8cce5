/*
 * Load generator for WebSocket servers: one thread, one epoll, no dependencies.
 *
 *   load fanout  every message of the publishers goes to all subscribers of one channel
 *   load pairs   many channels with one subscriber each, published to in turn
 *   load storm   connect, authenticate, subscribe, perhaps recover; as fast as allowed
 *   load idle    the same, then answer heartbeats until stdin ends
 *
 * The result is one line of JSON on stdout. The exit status is 1 if a message was lost,
 * repeated, out of order or refused: such a run measures nothing.
 *
 * W messages are in flight: one is done when it was delivered to everybody and, where the
 * dialect acknowledges, acknowledged. So the server is never asked for more than it does,
 * and latencies are those of that load, not of a queue that grows.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

struct settings set = {
	.host = "127.0.0.1", .channel = "bench", .port = 8000,
	.subscribers = 1000, .publishers = 1, .channels = 1, .window = 1, .size = 64,
	.concurrency = 64, .seconds = 1.0, .warmup = 0.2, .timeout = 30.0,
};
const struct dialect *dialect;

enum {
	READ_SIZE = 256 * 1024,
	EVENTS = 512,
	RING = 8192,   /* messages that a publisher remembers; more than any window */
	MAX_PIDS = 64,
	SETTLE_MS = 50,
	STALL_MS = 5000,
	HEAD = 17,     /* of a payload: the mark, the number, the publisher */
};

static int poll_fd;
static uint64_t now; /* ns; read once after each wait and each recv */
static struct conn *subscribers, *publishers;
static struct conn **dirty;
static uint32_t dirty_count;

static struct {
	uint64_t deliveries, acknowledged, completed, published;
	uint64_t lost, duplicates, misordered, refused, closed, failed, heartbeats;
	uint32_t ready;
} total;

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec time;
	clock_gettime(clock, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void die(const char *what)
{
	fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
	exit(2);
}

static void complain(const char *what, const uint8_t *text, size_t size)
{
	static int said;
	if (said++ < 3)
		fprintf(stderr, "load: %s: %.*s\n", what, (int)(size > 300 ? 300 : size), text);
}

/* ---- CPU of the servers: user + system of all their threads, also of those that ended ---- */

static clockid_t server_clocks[MAX_PIDS];
static int server_count;

static void add_servers(char *list)
{
	for (char *pid = strtok(list, ","); pid && server_count < MAX_PIDS; pid = strtok(NULL, ",")) {
		errno = clock_getcpuclockid(atoi(pid), &server_clocks[server_count]);
		if (errno)
			die("--server-pid");
		server_count++;
	}
}

static uint64_t server_cpu(void)
{
	uint64_t sum = 0;
	for (int i = 0; i < server_count; i++)
		sum += clock_ns(server_clocks[i]);
	return sum;
}

/* ---- latencies: 64 buckets for each power of two, so within 1.6 % ---------------------- */

enum { FINE = 64 };
static uint64_t histogram[64 * FINE], recorded, slowest;

static void record(uint64_t ns, uint64_t times)
{
	unsigned bucket = (unsigned)ns;
	if (ns >= FINE) {
		unsigned power = 63 - (unsigned)__builtin_clzll(ns) - 6;
		bucket = (power + 1) * FINE + (unsigned)((ns >> power) - FINE);
	}
	histogram[bucket] += times;
	recorded += times;
	if (ns > slowest)
		slowest = ns;
}

static double percentile(double fraction)
{
	uint64_t wanted = (uint64_t)(fraction * (double)recorded), seen = 0;
	for (unsigned bucket = 0; bucket < 64 * FINE; bucket++) {
		seen += histogram[bucket];
		if (seen > wanted) {
			if (bucket < FINE)
				return bucket / 1e3;
			unsigned power = bucket / FINE - 1;
			return (double)((uint64_t)(FINE + bucket % FINE) << power) / 1e3;
		}
	}
	return 0;
}

/* ---- messages in flight ------------------------------------------------------------------ */

struct message {
	uint64_t published_at;
	uint32_t number;
	uint32_t missing; /* deliveries */
	bool unacknowledged;
};

static struct message *messages; /* RING for each publisher */
static uint32_t *next_number;	 /* publisher: of the message to be published next */
static uint32_t *in_flight;	 /* publisher */
static uint32_t *expected;	 /* subscriber × publisher: the next number */
static uint32_t stride = 1;	 /* between the numbers that one subscriber gets */
static bool publishing;
static uint64_t last_progress;

static struct message *message_at(uint32_t publisher, uint32_t number)
{
	return &messages[(size_t)publisher * RING + number % RING];
}

static void finish_if_done(struct message *message, uint32_t publisher)
{
	if (message->missing == 0 && !message->unacknowledged) {
		in_flight[publisher]--;
		total.completed++;
		last_progress = now;
	}
}

static void publish_more(void)
{
	uint32_t each = set.window / set.publishers;
	uint32_t receivers = stride == 1 ? set.subscribers : 1;
	for (uint32_t i = 0; i < set.publishers; i++) {
		while (in_flight[i] < each) {
			uint32_t number = next_number[i];
			struct message *message = message_at(i, number);
			if (message->missing || message->unacknowledged)
				break; /* one that is RING older is still on its way */
			*message = (struct message){now, number, receivers, dialect->acknowledges};
			next_number[i]++;
			in_flight[i]++;
			total.published++;
			dialect->publish(&publishers[i], number % set.channels, number);
		}
	}
}

/* Eight hexadecimal digits at once: this is done for every delivery. */
static uint32_t read_hex(const uint8_t *text)
{
	uint64_t word;
	memcpy(&word, text, 8);
	word = __builtin_bswap64(word);
	word = (word & 0x0f0f0f0f0f0f0f0full) + 9 * (word >> 6 & 0x0101010101010101ull);
	word = (word | word >> 4) & 0x00ff00ff00ff00ffull;
	word = (word | word >> 8) & 0x0000ffff0000ffffull;
	return (uint32_t)(word | word >> 16);
}

void put_payload(struct buffer *to, uint32_t publisher, uint32_t number)
{
	static const char digits[] = "0123456789abcdef";
	uint8_t *text = buffer_room(to, set.size);
	text[0] = '~';
	for (int i = 0; i < 8; i++) {
		text[1 + i] = (uint8_t)digits[number >> (28 - 4 * i) & 0xf];
		text[9 + i] = (uint8_t)digits[publisher >> (28 - 4 * i) & 0xf];
	}
	memset(text + HEAD, 'x', set.size - HEAD);
	to->size += set.size;
}

void put_channel(struct buffer *to, uint32_t channel)
{
	char text[160];
	buffer_add(to, text, (size_t)snprintf(text, sizeof text, "%s%05u", set.channel, channel));
}

/* Whether our payload begins at `mark`: a '~' alone may also be 126 in a binary header. */
static bool is_payload(const uint8_t *mark, const uint8_t *end)
{
	return end - mark >= set.size && *mark == '~' && memcmp(mark + HEAD, "xxx", 3) == 0;
}

static const uint8_t *find_payload(const uint8_t *text, const uint8_t *end)
{
	static size_t usual; /* where it was in the last message */
	if (text + usual < end && is_payload(text + usual, end))
		return text + usual;
	for (const uint8_t *mark = text; mark < end; mark++) {
		mark = memchr(mark, '~', (size_t)(end - mark));
		if (!mark)
			break;
		if (is_payload(mark, end)) {
			usual = (size_t)(mark - text);
			return mark;
		}
	}
	return NULL;
}

void on_delivery(struct conn *conn, const uint8_t *text, size_t size)
{
	const uint8_t *mark = find_payload(text, text + size);
	if (!mark) {
		on_refused(conn, text, size);
		return;
	}
	uint32_t number = read_hex(mark + 1), publisher = read_hex(mark + 9);
	if (conn->phase != READY || !messages) { /* history, before it is live */
		if (number != conn->received++)
			total.misordered++;
		if (conn->subscribed && conn->received == set.recover)
			on_ready(conn);
		return;
	}
	if (publisher >= set.publishers) {
		on_refused(conn, text, size);
		return;
	}
	total.deliveries++;
	struct message *message = message_at(publisher, number);
	uint32_t *next = &expected[(size_t)conn->index * set.publishers + publisher];
	if (number != *next)
		total.misordered++;
	*next = number + stride;
	if (message->number != number || !message->missing) {
		total.duplicates++;
		return;
	}
	record(now - message->published_at, 1);
	message->missing--;
	finish_if_done(message, publisher);
}

void on_acknowledged(struct conn *conn, uint32_t number, bool duplicate)
{
	struct message *message = message_at(conn->index, number);
	if (duplicate || !messages || message->number != number || !message->unacknowledged) {
		total.duplicates++;
		return;
	}
	total.acknowledged++;
	message->unacknowledged = false;
	finish_if_done(message, conn->index);
}

void on_refused(struct conn *conn, const uint8_t *text, size_t size)
{
	(void)conn;
	total.refused++;
	complain("the server refused or sent what was not understood", text, size);
}

void on_heartbeat(void)
{
	total.heartbeats++;
}

static char first_epoch[sizeof set.epoch];

void on_epoch(const char *epoch, size_t size)
{
	if (!first_epoch[0] && size < sizeof first_epoch)
		memcpy(first_epoch, epoch, size);
}

/* ---- connections ---------------------------------------------------------------------------- */

static void drop(struct conn *conn)
{
	if (conn->phase == GONE)
		return;
	if (conn->phase == READY)
		total.ready--;
	conn->phase = GONE;
	/* Reset, so that thousands of ports do not stay in TIME_WAIT. */
	struct linger reset = {1, 0};
	setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
	close(conn->fd);
	buffer_free(&conn->in);
	buffer_free(&conn->out);
	buffer_free(&conn->stream);
}

static void watch(struct conn *conn, uint32_t events, int operation)
{
	struct epoll_event event = {.events = events | EPOLLRDHUP | EPOLLET, .data.ptr = conn};
	if (epoll_ctl(poll_fd, operation, conn->fd, &event))
		die("epoll_ctl");
}

static void flush(struct conn *conn)
{
	conn->dirty = false;
	if (conn->phase == GONE || conn->phase == CONNECTING || !conn->out.size)
		return;
	ssize_t sent = send(conn->fd, conn->out.data, conn->out.size, MSG_NOSIGNAL);
	if (sent < 0 && errno != EAGAIN)
		return; /* reading will tell */
	size_t left = conn->out.size - (sent < 0 ? 0 : (size_t)sent);
	if (left)
		memmove(conn->out.data, conn->out.data + conn->out.size - left, left);
	conn->out.size = left;
	if (!left && conn->role == SUBSCRIBER) /* there are many, and they seldom write */
		buffer_free(&conn->out);
	if ((left > 0) != conn->waits_to_write) {
		conn->waits_to_write = left > 0;
		watch(conn, EPOLLIN | (left ? EPOLLOUT : 0), EPOLL_CTL_MOD);
	}
}

static void flush_all(void)
{
	for (uint32_t i = 0; i < dirty_count; i++)
		flush(dirty[i]);
	dirty_count = 0;
}

static void will_flush(struct conn *conn)
{
	if (!conn->dirty) {
		conn->dirty = true;
		dirty[dirty_count++] = conn;
	}
}

void send_frame(struct conn *conn, uint8_t opcode, const void *payload, size_t size)
{
	static uint32_t random = 0x9e3779b9;
	random ^= random << 13;
	random ^= random >> 17;
	random ^= random << 5;
	uint8_t mask[4];
	memcpy(mask, &random, 4);
	uint8_t *to = buffer_room(&conn->out, size + 14);
	size_t head = frame_header(to, opcode, size, mask);
	const uint8_t *from = payload;
	for (size_t i = 0; i < size; i++)
		to[head + i] = from[i] ^ mask[i & 3];
	conn->out.size += head + size;
	will_flush(conn);
}

void on_ready(struct conn *conn)
{
	if (conn->phase != OPENING)
		return;
	conn->subscribed = true;
	if (set.epoch[0] && conn->role == SUBSCRIBER && conn->received < set.recover)
		return;
	conn->phase = READY;
	total.ready++;
	last_progress = now;
	if (!messages)
		record(now - conn->begun, 1);
}

static void begin(struct conn *conn, enum role role, uint32_t index)
{
	*conn = (struct conn){.role = (uint8_t)role, .index = index, .phase = CONNECTING};
	conn->channel = role == SUBSCRIBER ? index % set.channels : 0;
	conn->begun = clock_ns(CLOCK_MONOTONIC);
	conn->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (conn->fd < 0)
		die("socket");
	int on = 1;
	setsockopt(conn->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)set.port)};
	if (inet_pton(AF_INET, set.host, &address.sin_addr) != 1)
		die("--host must be an IPv4 address");
	if (connect(conn->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS)
		die("connect");
	watch(conn, EPOLLOUT, EPOLL_CTL_ADD);
}

static void send_handshake(struct conn *conn)
{
	char channel[160], path[512], request[8192];
	snprintf(channel, sizeof channel, "%s%05u", set.channel, conn->channel);
	const char *pattern = set.path ? set.path
			      : conn->role == PUBLISHER ? dialect->publisher_path
							: dialect->path;
	const char *hole = strstr(pattern, "%s");
	if (hole)
		snprintf(path, sizeof path, "%.*s%s%s", (int)(hole - pattern), pattern, channel,
			 hole + 2);
	else
		snprintf(path, sizeof path, "%s", pattern);
	int size = snprintf(request, sizeof request,
			    "GET %s HTTP/1.1\r\nHost: %s:%d\r\nConnection: Upgrade\r\n"
			    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
			    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s%s%s",
			    path, set.host, set.port,
			    dialect->subprotocol ? "Sec-WebSocket-Protocol: " : "",
			    dialect->subprotocol ? dialect->subprotocol : "",
			    dialect->subprotocol ? "\r\n" : "");
	/* As large as a browser's, if so asked: "\r\nCookie: \r\n\r\n" is what surrounds it. */
	int padding = (int)set.header_bytes - size - 12;
	if (padding > 0)
		size += snprintf(request + size, sizeof request - (size_t)size,
				 "Cookie: %0*d\r\n", padding, 0);
	size += snprintf(request + size, sizeof request - (size_t)size, "\r\n");
	buffer_add(&conn->out, request, (size_t)size);
	will_flush(conn);
}

static void failed(struct conn *conn, const char *why, const uint8_t *text, size_t size)
{
	complain(why, text, size);
	if (conn->phase == READY)
		total.closed++;
	else
		total.failed++;
	drop(conn);
}

/* Handle what came; return how much of it was used up. */
static size_t consume(struct conn *conn, uint8_t *data, size_t size)
{
	size_t at = 0;
	if (conn->phase == HANDSHAKE) {
		uint8_t *end = memmem(data, size, "\r\n\r\n", 4);
		if (!end)
			return 0;
		if (size < 12 || memcmp(data, "HTTP/1.1 101", 12) != 0) {
			failed(conn, "the handshake was refused", data, size);
			return size;
		}
		at = (size_t)(end + 4 - data);
		conn->phase = OPENING;
		dialect->open(conn);
	}
	struct frame frame;
	while (conn->phase != GONE && frame_at(data + at, size - at, &frame)) {
		if (frame.opcode <= BINARY)
			dialect->message(conn, frame.payload, frame.size);
		else if (frame.opcode == PING) {
			send_frame(conn, PONG, frame.payload, frame.size);
			on_heartbeat();
		} else if (frame.opcode == CLOSE) {
			size_t skip = frame.size < 2 ? 0 : 2;
			failed(conn, "the server closes", frame.payload + skip, frame.size - skip);
		}
		at += frame.whole;
	}
	return at;
}

/* Read what there is; tell whether there may be more. What fills less than was asked for is
 * all there is, but the end of the connection may be behind it: that is told only once, too. */
static bool readable(struct conn *conn, bool ended)
{
	static uint8_t shared[READ_SIZE * 2];
	size_t kept = conn->in.size;
	if (kept > READ_SIZE) {
		failed(conn, "a frame that is too large", (const uint8_t *)"", 0);
		return false;
	}
	if (kept)
		memcpy(shared, conn->in.data, kept);
	ssize_t got = recv(conn->fd, shared + kept, READ_SIZE, 0);
	if (got < 0 && errno == EAGAIN)
		return false;
	if (got <= 0) {
		const char *why = got ? strerror(errno) : "end of file";
		failed(conn, "the connection was lost", (const uint8_t *)why, strlen(why));
		return false;
	}
	now = clock_ns(CLOCK_MONOTONIC);
	size_t size = kept + (size_t)got;
	size_t used = consume(conn, shared, size);
	if (conn->phase == GONE)
		return false;
	conn->in.size = 0;
	if (used < size)
		buffer_add(&conn->in, shared + used, size - used);
	else if (conn->in.data)
		buffer_free(&conn->in);
	return ended || got == READ_SIZE;
}

static void writable(struct conn *conn)
{
	if (conn->phase != CONNECTING) {
		flush(conn);
		return;
	}
	int error = 0;
	socklen_t length = sizeof error;
	getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &length);
	if (error) {
		const char *why = strerror(error);
		failed(conn, "connect", (const uint8_t *)why, strlen(why));
		return;
	}
	conn->phase = HANDSHAKE;
	watch(conn, EPOLLIN, EPOLL_CTL_MOD);
	send_handshake(conn);
}

/* One wait, and everything that follows from it. True if stdin has something to say. */
static bool turn(int timeout_ms)
{
	static struct epoll_event events[EVENTS];
	bool told = false;
	int count = epoll_wait(poll_fd, events, EVENTS, timeout_ms);
	if (count < 0 && errno != EINTR)
		die("epoll_wait");
	now = clock_ns(CLOCK_MONOTONIC);
	for (int i = 0; i < count; i++) {
		struct conn *conn = events[i].data.ptr;
		if (!conn) {
			told = true;
			continue;
		}
		if (conn->phase != GONE && events[i].events & EPOLLOUT)
			writable(conn);
		/* Told once for what has come: without asking again about those that are empty. */
		bool ended = events[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
		if (conn->phase > CONNECTING && (ended || events[i].events & EPOLLIN))
			while (conn->phase != GONE && readable(conn, ended))
				;
	}
	if (publishing)
		publish_more();
	flush_all();
	return told;
}

static double seconds_since(uint64_t then)
{
	return (double)(clock_ns(CLOCK_MONOTONIC) - then) / 1e9;
}

/* Connect `count` of them, never more than `set.concurrency` at a time. */
static void connect_all(struct conn *conns, enum role role, uint32_t count)
{
	uint64_t began = clock_ns(CLOCK_MONOTONIC);
	uint32_t before = total.ready, started = 0;
	while (total.ready - before + (uint32_t)total.failed < count) {
		double elapsed = seconds_since(began);
		if (elapsed > set.timeout) {
			total.failed += count - (total.ready - before) - (uint32_t)total.failed;
			complain("not all were connected in time", (const uint8_t *)"", 0);
			return;
		}
		uint32_t open = started - (total.ready - before) - (uint32_t)total.failed;
		bool wait = false;
		while (started < count && open < set.concurrency) {
			wait = set.rate && started >= elapsed * set.rate;
			if (wait)
				break;
			begin(&conns[started], role, started);
			started++;
			open++;
		}
		turn(wait ? 1 : 100);
	}
}

static void drop_all(void)
{
	for (uint32_t i = 0; i < set.subscribers; i++)
		if (subscribers[i].begun)
			drop(&subscribers[i]);
	for (uint32_t i = 0; i < set.publishers; i++)
		if (publishers[i].begun)
			drop(&publishers[i]);
}

/* ---- results ------------------------------------------------------------------------------------ */

struct mark {
	uint64_t time, server, own, deliveries, acknowledged, completed;
};

static struct mark mark(void)
{
	return (struct mark){clock_ns(CLOCK_MONOTONIC), server_cpu(),
			     clock_ns(CLOCK_PROCESS_CPUTIME_ID), total.deliveries,
			     total.acknowledged, total.completed};
}

static int report(const char *mode, struct mark from, struct mark to, uint64_t connections)
{
	double seconds = (double)(to.time - from.time) / 1e9;
	double server = (double)(to.server - from.server) / 1e9;
	double own = (double)(to.own - from.own) / 1e9;
	uint64_t deliveries = to.deliveries - from.deliveries;
	uint64_t completed = to.completed - from.completed;
	bool good = !(total.lost || total.duplicates || total.misordered || total.refused ||
		      total.closed || total.failed);
	printf("{\"mode\":\"%s\",\"dialect\":\"%s\",\"subscribers\":%u,\"publishers\":%u,"
	       "\"channels\":%u,\"window\":%u,\"size\":%u,\"seconds\":%.6f,"
	       "\"connections\":%llu,\"deliveries\":%llu,\"acknowledged\":%llu,\"messages\":%llu,",
	       mode, dialect->name, set.subscribers, set.publishers, set.channels, set.window,
	       set.size, seconds, (unsigned long long)connections, (unsigned long long)deliveries,
	       (unsigned long long)(to.acknowledged - from.acknowledged),
	       (unsigned long long)completed);
	if (server_count) {
		printf("\"server_cpu\":%.6f,", server);
		if (deliveries)
			printf("\"us_a_delivery\":%.4f,", server * 1e6 / (double)deliveries);
		if (completed)
			printf("\"us_a_message\":%.4f,", server * 1e6 / (double)completed);
		if (connections)
			printf("\"us_a_connection\":%.3f,", server * 1e6 / (double)connections);
	}
	printf("\"latency_us\":{\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f},",
	       percentile(0.5), percentile(0.9), percentile(0.99), percentile(0.999),
	       (double)slowest / 1e3);
	printf("\"generator_cpu\":%.6f,\"generator_busy\":%.3f,\"heartbeats\":%llu,"
	       "\"errors\":{\"lost\":%llu,\"duplicates\":%llu,\"misordered\":%llu,"
	       "\"refused\":%llu,\"closed\":%llu,\"failed\":%llu},\"ok\":%s}\n",
	       own, seconds > 0 ? own / seconds : 0, (unsigned long long)total.heartbeats,
	       (unsigned long long)total.lost, (unsigned long long)total.duplicates,
	       (unsigned long long)total.misordered, (unsigned long long)total.refused,
	       (unsigned long long)total.closed, (unsigned long long)total.failed,
	       good ? "true" : "false");
	fflush(stdout);
	return good ? 0 : 1;
}

/* ---- modes ---------------------------------------------------------------------------------------- */

static void run_for(double seconds, uint64_t until_completed)
{
	uint64_t began = clock_ns(CLOCK_MONOTONIC);
	while (total.completed < until_completed && seconds_since(began) < seconds) {
		turn(100);
		if (now - last_progress > STALL_MS * 1000000ull)
			break;
	}
}

static uint32_t flying(void)
{
	uint32_t sum = 0;
	for (uint32_t i = 0; i < set.publishers; i++)
		sum += in_flight[i];
	return sum;
}

static void settle(int milliseconds)
{
	uint64_t began = clock_ns(CLOCK_MONOTONIC);
	while (seconds_since(began) * 1000 < milliseconds)
		turn(10);
}

static void begin_messages(void)
{
	messages = calloc((size_t)set.publishers * RING, sizeof *messages);
	next_number = calloc(set.publishers, sizeof *next_number);
	in_flight = calloc(set.publishers, sizeof *in_flight);
	expected = calloc((size_t)set.subscribers * set.publishers, sizeof *expected);
	if (!messages || !next_number || !in_flight || !expected)
		die("memory");
	if (stride > 1)
		for (uint32_t i = 0; i < set.subscribers; i++)
			for (uint32_t j = 0; j < set.publishers; j++)
				expected[(size_t)i * set.publishers + j] = i;
	memset(histogram, 0, sizeof histogram);
	recorded = slowest = 0;
	publishing = true;
	last_progress = now;
	publish_more();
	flush_all();
}

/* fanout and pairs: warm up, measure, then wait for what is in flight and look for losses. */
static int measure(const char *mode)
{
	connect_all(subscribers, SUBSCRIBER, set.subscribers);
	if (!total.failed)
		connect_all(publishers, PUBLISHER, set.publishers);
	struct mark from = mark(), to = from;
	if (!total.failed && !total.refused) {
		settle(SETTLE_MS);
		begin_messages();
		run_for(set.warmup, UINT64_MAX);
		memset(histogram, 0, sizeof histogram);
		recorded = slowest = 0;
		from = mark();
		run_for(set.seconds, set.count ? from.completed + set.count : UINT64_MAX);
		to = mark();
		publishing = false;
		uint64_t stopped = clock_ns(CLOCK_MONOTONIC);
		while (flying() && seconds_since(stopped) * 1000 < STALL_MS)
			turn(100);
		settle(SETTLE_MS); /* what comes twice comes late */
		for (size_t i = 0; i < (size_t)set.publishers * RING; i++)
			total.lost += messages[i].missing + messages[i].unacknowledged;
	}
	drop_all();
	return report(mode, from, to, 0);
}

/* Fill a new channel's history with what all others then recover. */
static void prepare_recovery(void)
{
	uint32_t wanted = set.recover, many = set.subscribers;
	set.subscribers = 1;
	connect_all(subscribers, SUBSCRIBER, 1);
	connect_all(publishers, PUBLISHER, 1);
	if (total.failed || total.refused)
		return;
	set.window = 1;
	begin_messages();
	while (total.completed < wanted && now - last_progress < STALL_MS * 1000000ull) {
		publishing = total.published < wanted;
		turn(100);
	}
	publishing = false;
	free(messages);
	messages = NULL;
	drop_all();
	set.subscribers = many;
	memcpy(set.epoch, first_epoch, sizeof set.epoch);
	settle(SETTLE_MS);
	memset(histogram, 0, sizeof histogram);
	recorded = slowest = 0;
}

static int storm(bool hold)
{
	if (set.recover)
		prepare_recovery();
	struct mark from = mark(), to = from;
	if (!total.failed && !total.refused) {
		connect_all(subscribers, SUBSCRIBER, set.subscribers);
		to = mark();
	}
	uint64_t connections = total.ready;
	if (hold) {
		printf("{\"ready\":%llu}\n", (unsigned long long)connections);
		fflush(stdout);
		struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
		if (epoll_ctl(poll_fd, EPOLL_CTL_ADD, STDIN_FILENO, &event))
			die("stdin must be a pipe");
		while (!turn(1000))
			;
	}
	drop_all();
	return report(hold ? "idle" : "storm", from, to, connections);
}

static const struct option options[] = {
	{"host", 1, 0, 'h'},	    {"port", 1, 0, 'p'},	{"path", 1, 0, 'P'},
	{"dialect", 1, 0, 'd'},	    {"subscribers", 1, 0, 's'}, {"connections", 1, 0, 's'},
	{"publishers", 1, 0, 'm'},  {"channels", 1, 0, 'c'},	{"window", 1, 0, 'w'},
	{"size", 1, 0, 'z'},	    {"seconds", 1, 0, 't'},	{"warmup", 1, 0, 'u'},
	{"count", 1, 0, 'n'},	    {"concurrency", 1, 0, 'k'}, {"rate", 1, 0, 'r'},
	{"token", 1, 0, 'T'},	    {"recover", 1, 0, 'R'},	{"header-bytes", 1, 0, 'H'},
	{"server-pid", 1, 0, 'S'},  {"channel", 1, 0, 'C'},	{"timeout", 1, 0, 'o'},
	{"subscribe-apart", 0, 0, 'a'}, {0},
};

static void usage(void)
{
	fprintf(stderr, "usage: load fanout|pairs|storm|idle");
	for (const struct option *option = options; option->name; option++)
		fprintf(stderr, " [--%s%s]", option->name, option->has_arg ? " …" : "");
	fprintf(stderr, "\n");
	exit(2);
}

static void parse(int argc, char **argv)
{
	const char *name = "plain";
	for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		switch (option) {
		case 'h': set.host = optarg; break;
		case 'p': set.port = atoi(optarg); break;
		case 'P': set.path = optarg; break;
		case 'd': name = optarg; break;
		case 's': set.subscribers = (uint32_t)atoi(optarg); break;
		case 'm': set.publishers = (uint32_t)atoi(optarg); break;
		case 'c': set.channels = (uint32_t)atoi(optarg); break;
		case 'w': set.window = (uint32_t)atoi(optarg); break;
		case 'z': set.size = (uint32_t)atoi(optarg); break;
		case 't': set.seconds = atof(optarg); break;
		case 'u': set.warmup = atof(optarg); break;
		case 'n': set.count = strtoull(optarg, NULL, 10); break;
		case 'k': set.concurrency = (uint32_t)atoi(optarg); break;
		case 'r': set.rate = (uint32_t)atoi(optarg); break;
		case 'T': set.token = optarg; break;
		case 'R': set.recover = (uint32_t)atoi(optarg); break;
		case 'H': set.header_bytes = (uint32_t)atoi(optarg); break;
		case 'S': add_servers(optarg); break;
		case 'C': set.channel = optarg; break;
		case 'o': set.timeout = atof(optarg); break;
		case 'a': set.subscribe_apart = true; break;
		default: usage();
		}
	}
	dialect = find_dialect(name);
	if (!dialect || set.size < HEAD + 3 || set.size > 4096 || !set.publishers || !set.channels ||
	    set.window < set.publishers || set.window / set.publishers > RING / 2 ||
	    set.header_bytes > 4096 || strlen(set.channel) > 100 || !set.concurrency)
		usage();
}

int main(int argc, char **argv)
{
	if (argc < 2)
		usage();
	const char *mode = argv[1];
	parse(argc - 1, argv + 1);
	signal(SIGPIPE, SIG_IGN);
	struct rlimit files;
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	if (strcmp(mode, "pairs") == 0) {
		set.subscribers = set.channels;
		stride = set.channels;
	}
	poll_fd = epoll_create1(EPOLL_CLOEXEC);
	subscribers = calloc(set.subscribers + 1, sizeof *subscribers);
	publishers = calloc(set.publishers, sizeof *publishers);
	dirty = calloc(set.subscribers + set.publishers + 1, sizeof *dirty);
	if (poll_fd < 0 || !subscribers || !publishers || !dirty)
		die("start");
	now = clock_ns(CLOCK_MONOTONIC);
	if (strcmp(mode, "fanout") == 0 || strcmp(mode, "pairs") == 0)
		return measure(mode);
	if (strcmp(mode, "storm") == 0 || strcmp(mode, "idle") == 0)
		return storm(strcmp(mode, "idle") == 0);
	usage();
}
