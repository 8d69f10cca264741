/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Unix socket that the API listens on: takes its path, and gives it back at the end without ever deleting what is
 * somebody else's. Embedded in struct api; loop thread only.
 */
#ifndef API_LISTENER_H
#define API_LISTENER_H

#include <sys/types.h>
#include <sys/un.h>

#include "base/err.h"

struct listener {
	int fd; /* listens, non-blocking */
	struct sockaddr_un address;
	dev_t device; /* which file it was that bind made */
	ino_t inode;
};

/*
 * Binds to path with mode 0660 and listens. A left-over socket that nobody listens on is replaced. 0; -EADDRINUSE:
 * somebody answers there; -EEXIST: there is something that is no socket; -ENAMETOOLONG; or what the system says.
 */
int listener_open(struct listener *listener, const char *path, struct err *err);

/* Removes the socket's file if it is still the one that open made. fd stays open: it is the HTTP server's. */
void listener_remove(const struct listener *listener);

#endif
