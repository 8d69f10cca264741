/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "board/board.h"

#define BOOT_ID_PATH "/proc/sys/kernel/random/boot_id"

/* What the kernel prints: 9f8e7d6c-0123-4567-89ab-cdef01234567. */
static bool is_uuid(const char *text)
{
	static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
	if (strlen(text) != strlen(form) || strspn(text, "0123456789abcdef-") != strlen(form))
		return false;
	for (size_t i = 0; form[i]; i++) {
		if ((form[i] == '-') != (text[i] == '-'))
			return false;
	}
	return true;
}

static ssize_t read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ssize_t n = read(fd, text, size - 1);
	if (n < 0)
		n = -errno;
	else
		text[n] = '\0';
	close(fd);
	return n;
}

int board_boot_id(const char *root, char ret_id[BOARD_BOOT_ID], struct err *err)
{
	char path[PATH_MAX];
	if (snprintf(path, sizeof path, "%s" BOOT_ID_PATH, root) >= (int)sizeof path)
		return err_fail(err, -ENAMETOOLONG, "%s" BOOT_ID_PATH ": %s", root, strerror(ENAMETOOLONG));
	char text[BOARD_BOOT_ID + 1]; /* one more: its line break, or what makes it no boot id */
	ssize_t n = read_text(path, text, sizeof text);
	if (n < 0)
		return err_fail(err, (int)n, "%s: %s", path, strerror((int)-n));
	text[strcspn(text, "\n")] = '\0';
	if (!is_uuid(text))
		return err_fail(err, -EBADMSG, "%s: holds no boot id", path);
	memcpy(ret_id, text, BOARD_BOOT_ID);
	return 0;
}
