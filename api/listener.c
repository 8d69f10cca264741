/* SPDX-License-Identifier: Apache-2.0 */
#include "api/listener.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define BACKLOG 64 /* a client that does not wait in connect(2), like curl, fails beyond it */
#define MODE    0660

static int socket_new(struct err *err)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		int code = -errno;
		return err_fail(err, code, "a Unix socket: %s", strerror(-code));
	}
	return fd;
}

/* 0: nobody listens at the address; -EADDRINUSE: somebody does; or why that cannot be told. */
static int ask_whether_free(const struct sockaddr_un *address, struct err *err)
{
	int fd = socket_new(err);
	if (fd < 0)
		return fd;
	int code = connect(fd, (const struct sockaddr *)address, sizeof *address) == 0 ? 0 : errno;
	close(fd);
	if (code == ECONNREFUSED || code == ENOENT)
		return 0;
	if (code == EACCES || code == EPERM)
		return err_place(err, -code, "socket", address->sun_path);
	/* It took the call, or is too busy to (EAGAIN), or speaks something else (EPROTOTYPE): it is there. */
	return err_fail(
	        err, -EADDRINUSE,
	        "%s: another process answers on this socket; a second Millrace wants a socket = \"...\" of its own",
	        address->sun_path);
}

static int clear_leftover(const struct sockaddr_un *address, struct err *err)
{
	struct stat st;
	if (lstat(address->sun_path, &st) < 0)
		return 0; /* whatever is wrong, bind says it */
	if (!S_ISSOCK(st.st_mode))
		return err_fail(err, -EEXIST, "%s: there is a file that is no socket; move it away", address->sun_path);
	int rc = ask_whether_free(address, err);
	if (rc < 0)
		return rc;
	if (unlink(address->sun_path) < 0 && errno != ENOENT)
		return err_place(err, -errno, "socket", address->sun_path);
	return 0;
}

/* The mode is set before bind too, which takes it over: so at no moment may others connect. */
static int bind_and_listen(struct listener *listener)
{
	struct stat st;
	if (fchmod(listener->fd, MODE) < 0 ||
	    bind(listener->fd, (const struct sockaddr *)&listener->address, sizeof listener->address) < 0)
		return -errno;
	if (chmod(listener->address.sun_path, MODE) < 0 || listen(listener->fd, BACKLOG) < 0 ||
	    lstat(listener->address.sun_path, &st) < 0) {
		int code = -errno;
		unlink(listener->address.sun_path);
		return code;
	}
	listener->device = st.st_dev;
	listener->inode = st.st_ino;
	return 0;
}

int listener_open(struct listener *listener, const char *path, struct err *err)
{
	*listener = (struct listener){ .fd = -1, .address = { .sun_family = AF_UNIX } };
	if (strlen(path) >= sizeof listener->address.sun_path)
		return err_fail(err, -ENAMETOOLONG, "%s: a socket's path has at most %zu bytes", path,
		                sizeof listener->address.sun_path - 1);
	memcpy(listener->address.sun_path, path, strlen(path));
	int rc = clear_leftover(&listener->address, err);
	if (rc < 0)
		return rc;
	int fd = socket_new(err);
	if (fd < 0)
		return fd;
	listener->fd = fd;
	rc = bind_and_listen(listener);
	if (rc < 0) {
		close(fd);
		listener->fd = -1;
		return err_place(err, rc, "socket", path);
	}
	return 0;
}

void listener_remove(const struct listener *listener)
{
	struct stat st;
	if (lstat(listener->address.sun_path, &st) == 0 && st.st_dev == listener->device &&
	    st.st_ino == listener->inode)
		unlink(listener->address.sun_path);
}
