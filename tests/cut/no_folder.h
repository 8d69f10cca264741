/* SPDX-License-Identifier: Apache-2.0 */
/* For the sabotaged program (Makefile): SQLite finds no folder to sync after it has made a journal or WAL. */
#ifndef TESTS_CUT_NO_FOLDER_H
#define TESTS_CUT_NO_FOLDER_H

#include <sqlite3.h>

static int no_directory(const char *path, int *fd)
{
	(void)path;
	(void)fd;
	return SQLITE_CANTOPEN;
}

static void no_folder(void)
{
	sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);

	vfs->xSetSystemCall(vfs, "openDirectory", (sqlite3_syscall_ptr)no_directory);
}

#endif
