/* The little of RFC 6455 that the generator and the floor both need. */
#ifndef FRAMES_H
#define FRAMES_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum opcode { CONTINUATION = 0x0, TEXT = 0x1, BINARY = 0x2, CLOSE = 0x8, PING = 0x9, PONG = 0xA };

/* Bytes that grow at the end. */
struct buffer {
	uint8_t *data;
	size_t size, room;
};

/* Make room for `more` bytes and return where they go; the caller adds to `size`. */
static inline uint8_t *buffer_room(struct buffer *buffer, size_t more)
{
	if (buffer->size + more > buffer->room) {
		size_t room = buffer->room ? buffer->room : 256;
		while (room < buffer->size + more)
			room *= 2;
		buffer->data = realloc(buffer->data, room);
		if (!buffer->data)
			abort();
		buffer->room = room;
	}
	return buffer->data + buffer->size;
}

static inline void buffer_add(struct buffer *buffer, const void *bytes, size_t size)
{
	memcpy(buffer_room(buffer, size), bytes, size);
	buffer->size += size;
}

static inline void buffer_free(struct buffer *buffer)
{
	free(buffer->data);
	*buffer = (struct buffer){0};
}

/* One frame inside a run of received bytes. */
struct frame {
	uint8_t opcode;
	int fin;
	uint8_t *payload;
	size_t size;
	size_t whole; /* bytes with header */
};

/* Find the frame that begins at `data` and unmask it in place; 0 if it is not all there. */
static inline int frame_at(uint8_t *data, size_t size, struct frame *frame)
{
	if (size < 2)
		return 0;
	size_t head = 2;
	uint64_t length = data[1] & 0x7f;
	if (length == 126) {
		if (size < 4)
			return 0;
		length = (uint64_t)data[2] << 8 | data[3];
		head = 4;
	} else if (length == 127) {
		if (size < 10)
			return 0;
		length = 0;
		for (int i = 2; i < 10; i++)
			length = length << 8 | data[i];
		head = 10;
	}
	int masked = data[1] & 0x80;
	uint8_t *mask = data + head;
	head += masked ? 4 : 0;
	if (size < head || size - head < length)
		return 0;
	frame->opcode = data[0] & 0x0f;
	frame->fin = data[0] >> 7;
	frame->payload = data + head;
	frame->size = length;
	frame->whole = head + length;
	if (masked)
		for (size_t i = 0; i < length; i++)
			frame->payload[i] ^= mask[i & 3];
	return 1;
}

/* Write the header of an unfragmented frame; return its size. `mask` is 4 bytes or NULL. */
static inline size_t frame_header(uint8_t *to, uint8_t opcode, size_t size, const uint8_t *mask)
{
	size_t head = 2;
	uint8_t masked = mask ? 0x80 : 0;
	to[0] = 0x80 | opcode;
	if (size < 126) {
		to[1] = masked | (uint8_t)size;
	} else if (size < 65536) {
		to[1] = masked | 126;
		to[2] = (uint8_t)(size >> 8);
		to[3] = (uint8_t)size;
		head = 4;
	} else {
		to[1] = masked | 127;
		for (int i = 0; i < 8; i++)
			to[2 + i] = (uint8_t)((uint64_t)size >> (56 - 8 * i));
		head = 10;
	}
	if (mask) {
		memcpy(to + head, mask, 4);
		head += 4;
	}
	return head;
}

#endif
