/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Magic packets (AMD's Magic Packet Technology, publication 20213): six bytes of 0xff, sixteen times the MAC, and a
 * SecureOn password where the card wants one; by UDP, which no card looks at, to ports 9 and 7. Synchronous, and does
 * not block; any thread.
 */
#ifndef BOARD_WOL_H
#define BOARD_WOL_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define WOL_MAC        6
#define WOL_PACKET_MAX 108

/* "aa:bb:cc:dd:ee:ff", or with - between. 0 or -EINVAL; not a group address, not all zeros. */
int wol_parse_mac(const char *text, uint8_t ret_mac[WOL_MAC]);

/* A SecureOn password, written as a MAC is (ethtool's sopass), whatever its bytes. 0 or -EINVAL. */
int wol_parse_secure_on(const char *text, uint8_t ret_secure_on[WOL_MAC]);

/* secure_on: 6 bytes or NULL. Returns the packet's length: 102 or 108. */
size_t wol_packet(const uint8_t mac[WOL_MAC], const uint8_t *secure_on, uint8_t ret_packet[WOL_PACKET_MAX]);

struct wol {
	uint8_t mac[WOL_MAC];
	const uint8_t *secure_on; /* NULL: none */
	const char *interface; /* that they leave by; NULL: the one that the routes name, and then no subnet is known */
	struct in_addr unicast; /* where the machine was last; 0: not known. Its neighbour entry may be gone */
};

/*
 * One round: to the broadcast address of the interface's first IPv4 network, to 255.255.255.255 and to the unicast
 * address, each at ports 9 and 7: six packets; four or two where an address is not known, or the network has no
 * broadcast address. Needs no privilege from Linux 5.7 on. Returns how many left; 0 is never returned: -ENODEV: no such
 * interface; -ENETDOWN: it is down, or has no link; -ENETUNREACH: it has no IPv4 address; or what the system says. err
 * says which and what to do. A packet that was refused while others left is no error. That a packet left does not say
 * that it was on the wire: the unicast ones wait for a neighbour entry, and go with it.
 */
int wol_send(const struct wol *wol, struct err *err);

#endif
