/* SPDX-License-Identifier: Apache-2.0 */
/* The floor of the daemon's memory: a process that has the same libraries loaded and does nothing. */
#include <unistd.h>

int main(void)
{
	pause();
	return 0;
}
