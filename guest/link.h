/*
 * The byte stream to the host: a virtio-serial port, which knows no connections, or a listening vsock or unix socket,
 * where the newest connection is the host. A host is heard only after its HELLO.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "frames.h"

/* The device file of a virtio-serial port. False with errno set when it cannot be opened. */
bool link_open_port(const char *path);
bool link_listen_vsock(unsigned port);
bool link_listen_unix(const char *path);
/* A listening socket that was handed down. */
void link_listen_on(int fd);

void link_prepare(void);
/* Bytes as they come from the host, for the link itself and for its fuzzer. */
void link_feed(const uint8_t *data, size_t length);

/* A host has said HELLO and nothing has broken since. */
bool link_greeted(void);
/* Called by the handler of HELLO: forgets all that was meant for the host before. */
void link_greet(void);
/*
 * Whether a frame of bulk data may be queued: so little is kept in the queue that an answer to a ping waits behind
 * 64 KiB at most.
 */
bool link_has_room(void);
/* Queues a frame; dropped when no host is there. A host that asks without reading loses its connection. */
void link_send(const struct frame *frame);
