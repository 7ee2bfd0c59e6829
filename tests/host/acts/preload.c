/* SPDX-License-Identifier: Apache-2.0 */
/* A library that acts in whatever program it is put into. */
#include <fcntl.h>

__attribute__((constructor)) static void put_in(void)
{
	open("/etc/shadow", O_RDONLY);
}
