/* SPDX-License-Identifier: Apache-2.0 */
#include "board/wol.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define REPEATS 16

/* --- Text and bytes --- */

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static int parse(const char *text, uint8_t ret[WOL_MAC])
{
	uint8_t bytes[WOL_MAC];
	if (strlen(text) != 3 * WOL_MAC - 1 || (text[2] != ':' && text[2] != '-'))
		return -EINVAL;
	for (size_t i = 0; i < WOL_MAC; i++) {
		int high = hex_value(text[3 * i]), low = hex_value(text[3 * i + 1]);
		bool apart = i == WOL_MAC - 1 || text[3 * i + 2] == text[2];
		if (high < 0 || low < 0 || !apart)
			return -EINVAL;
		bytes[i] = (uint8_t)(high << 4 | low);
	}
	memcpy(ret, bytes, WOL_MAC);
	return 0;
}

int wol_parse_mac(const char *text, uint8_t ret_mac[WOL_MAC])
{
	static const uint8_t none[WOL_MAC];
	uint8_t mac[WOL_MAC];
	if (parse(text, mac) < 0 || (mac[0] & 1) || memcmp(mac, none, WOL_MAC) == 0)
		return -EINVAL;
	memcpy(ret_mac, mac, WOL_MAC);
	return 0;
}

int wol_parse_secure_on(const char *text, uint8_t ret_secure_on[WOL_MAC])
{
	return parse(text, ret_secure_on);
}

size_t wol_packet(const uint8_t mac[WOL_MAC], const uint8_t *secure_on, uint8_t ret_packet[WOL_PACKET_MAX])
{
	size_t len = WOL_MAC;
	memset(ret_packet, 0xff, len);
	for (int i = 0; i < REPEATS; i++, len += WOL_MAC)
		memcpy(ret_packet + len, mac, WOL_MAC);
	if (secure_on) {
		memcpy(ret_packet + len, secure_on, WOL_MAC);
		len += WOL_MAC;
	}
	return len;
}

/* --- The interface --- */

static in_addr_t ipv4_of(const struct sockaddr *address)
{
	return address ? ((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr : INADDR_ANY;
}

/*
 * What a network calls its broadcast address by RFC 919, and not the one it was given: `ip address add` gives none
 * unless asked to. 0: a network of one or two (RFC 3021) has none.
 */
static struct in_addr broadcast_of(const struct ifaddrs *entry)
{
	in_addr_t hosts = ~ipv4_of(entry->ifa_netmask);
	bool has = (entry->ifa_flags & IFF_BROADCAST) && ntohl(hosts) > 1;
	return (struct in_addr){ has ? ipv4_of(entry->ifa_addr) | hosts : INADDR_ANY };
}

static int judge(const char *name, bool found, unsigned flags, const struct ifaddrs *ipv4, struct err *err)
{
	if (!found)
		return err_fail(err, -ENODEV, "no interface \"%s\" here: `ip link` lists those that there are", name);
	if (!(flags & IFF_UP))
		return err_fail(err, -ENETDOWN, "interface \"%s\" is down: ip link set %s up", name, name);
	if (!(flags & IFF_RUNNING))
		return err_fail(err, -ENETDOWN, "interface \"%s\" has no link: is its cable in, or its Wi-Fi joined?",
		                name);
	if (!ipv4)
		return err_fail(err, -ENETUNREACH, "interface \"%s\" has no IPv4 address: `ip address show %s`", name,
		                name);
	return 0;
}

/* Whether it can carry a packet, and the broadcast address of the first network on it. */
static int find_broadcast(const char *name, struct in_addr *ret_broadcast, struct err *err)
{
	struct ifaddrs *list;
	const struct ifaddrs *ipv4 = NULL;
	unsigned flags = 0;
	bool found = false;
	if (getifaddrs(&list) < 0) {
		int code = -errno;
		return err_fail(err, code, "the interfaces cannot be listed: %s", strerror(-code));
	}
	for (const struct ifaddrs *entry = list; entry; entry = entry->ifa_next) {
		if (strcmp(entry->ifa_name, name) != 0)
			continue;
		found = true;
		flags = entry->ifa_flags;
		if (!ipv4 && entry->ifa_addr && entry->ifa_addr->sa_family == AF_INET)
			ipv4 = entry;
	}
	int rc = judge(name, found, flags, ipv4, err);
	if (rc == 0)
		*ret_broadcast = broadcast_of(ipv4);
	freeifaddrs(list);
	return rc;
}

/* --- Sending --- */

/* The socket, or -errno. */
static int open_socket(const char *interface, struct err *err)
{
	const int on = 1;
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0) {
		int code = -errno;
		return err_fail(err, code, "no socket to send from: %s", strerror(-code));
	}
	if (setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof on) < 0 ||
	    (interface && setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, interface, (socklen_t)strlen(interface)) < 0)) {
		int code = -errno;
		close(fd);
		return err_fail(err, code, "cannot send by interface \"%s\": %s%s", interface, strerror(-code),
		                code == -EPERM ? ": it needs Linux 5.7 or CAP_NET_RAW" : "");
	}
	return fd;
}

/* How many left; where none did, why. */
static int send_all(int fd, const struct wol *wol, const struct in_addr *to, size_t n_to)
{
	static const in_port_t ports[] = { 9, 7 };
	uint8_t packet[WOL_PACKET_MAX];
	size_t len = wol_packet(wol->mac, wol->secure_on, packet);
	int sent = 0, code = 0;
	for (size_t i = 0; i < n_to; i++) {
		for (size_t j = 0; j < sizeof ports / sizeof *ports; j++) {
			const struct sockaddr_in address = { .sin_family = AF_INET,
				                             .sin_port = htons(ports[j]),
				                             .sin_addr = to[i] };
			if (sendto(fd, packet, len, 0, (const struct sockaddr *)&address, sizeof address) >= 0)
				sent++;
			else if (code == 0)
				code = -errno;
		}
	}
	return sent > 0 ? sent : code;
}

static int refuse(struct err *err, int code, const char *interface)
{
	if (!interface && code == -ENETUNREACH)
		return err_fail(err, code,
		                "no route for a broadcast: name the interface (interface = \"eth0\") that the machine "
		                "is reached by");
	return err_fail(err, code, "no packet left by %s%s: %s", interface ? "interface " : "the default route",
	                interface ? interface : "", strerror(-code));
}

int wol_send(const struct wol *wol, struct err *err)
{
	struct in_addr to[3], subnet = { INADDR_ANY };
	size_t n = 0;
	int rc = wol->interface ? find_broadcast(wol->interface, &subnet, err) : 0;
	if (rc < 0)
		return rc;
	int fd = open_socket(wol->interface, err);
	if (fd < 0)
		return fd;
	if (subnet.s_addr != INADDR_ANY)
		to[n++] = subnet;
	to[n++].s_addr = INADDR_BROADCAST;
	if (wol->unicast.s_addr != INADDR_ANY)
		to[n++] = wol->unicast;
	rc = send_all(fd, wol, to, n);
	close(fd);
	return rc > 0 ? rc : refuse(err, rc, wol->interface);
}
