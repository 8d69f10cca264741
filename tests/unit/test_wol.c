/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What goes over the wire is read at the far end of a veth pair, in a network namespace that this test makes for
 * itself; without the right to, these tests are skipped, and say so.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "board/wol.h"

/* Written out, not computed: what the publication asks for. */
#define MAC  "\x02\x4d\x69\x6c\x6c\xfe"
#define MAC4 MAC MAC MAC MAC
static const char magic[] = "\xff\xff\xff\xff\xff\xff" MAC4 MAC4 MAC4 MAC4 "\x01\x00\xff\x7f\x80\x0a";
#define MAGIC     102
#define SECURE_ON (magic + MAGIC)

#define NEAR      "10.77.0.1"
#define FAR       "10.77.0.9"
/* It stands, for nobody answers there. */
#define NEIGHBOUR "neighbour replace " FAR " lladdr 02:4d:69:6c:6c:fe dev near nud permanent"

static bool have_namespace;

/* --- Text and bytes --- */

static void test_mac(void **state)
{
	static const char *const good[] = { "02:4d:69:6c:6c:fe", "02-4D-69-6C-6C-FE", "02:4D:69:6c:6C:fe" };
	static const char *const bad[] = {
		"",
		"02:4d:69:6c:6c",
		"02:4d:69:6c:6c:fe ",
		" 02:4d:69:6c:6c:fe",
		"02:4d:69:6c:6c:fe:00",
		"02:4d-69:6c:6c:fe",
		"02:4d:69:6c:6c-fe",
		"024d.696c.6cfe",
		"02.4d.69.6c.6c.fe",
		"024d696c6cfe",
		"2:4d:69:6c:6c:fe",
		"02:4d:69:6c:6c:fg",
		"02:4d:69:6c:6c:+e",
		"02:4d:69:6c:6c:\x15\x15",
		"03:4d:69:6c:6c:fe", /* a group */
		"ff:ff:ff:ff:ff:ff",
		"00:00:00:00:00:00",
	};
	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		uint8_t mac[WOL_MAC] = { 0 };
		assert_int_equal(wol_parse_mac(good[i], mac), 0);
		assert_memory_equal(mac, MAC, WOL_MAC);
	}
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		uint8_t mac[WOL_MAC] = "abcde";
		assert_int_equal(wol_parse_mac(bad[i], mac), -EINVAL);
		assert_memory_equal(mac, "abcde", WOL_MAC);
	}
}

static void test_secure_on(void **state)
{
	uint8_t password[WOL_MAC] = "abcde";
	(void)state;
	assert_int_equal(wol_parse_secure_on("01:00:FF:7f:80:0A", password), 0);
	assert_memory_equal(password, SECURE_ON, WOL_MAC);
	assert_int_equal(wol_parse_secure_on("00:00:00:00:00:00", password), 0);
	assert_memory_equal(password, "\0\0\0\0\0", WOL_MAC);
	assert_int_equal(wol_parse_secure_on("1.0.255.127.128.10", password), -EINVAL);
}

static void test_packet(void **state)
{
	uint8_t packet[WOL_PACKET_MAX];
	(void)state;
	assert_int_equal(wol_packet((const uint8_t *)MAC, NULL, packet), MAGIC);
	assert_memory_equal(packet, magic, MAGIC);
	assert_int_equal(wol_packet((const uint8_t *)MAC, (const uint8_t *)SECURE_ON, packet), WOL_PACKET_MAX);
	assert_memory_equal(packet, magic, WOL_PACKET_MAX);
}

/* --- The wire --- */

static bool ip(const char *arguments)
{
	char line[256];
	snprintf(line, sizeof line, "exec ip %s", arguments);
	return system(line) == 0;
}

/* Its only user is root there, whoever that is here, so that `ip` keeps the right. */
static bool unshare_as_root(void)
{
	char line[32];
	int len = snprintf(line, sizeof line, "0 %u 1", (unsigned)geteuid());
	if (unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
		return false;
	int fd = open("/proc/self/uid_map", O_WRONLY | O_CLOEXEC);
	bool done = fd >= 0 && write(fd, line, (size_t)len) == len;
	close(fd);
	return done;
}

static int group_setup(void **state)
{
	(void)state;
	have_namespace = (unshare(CLONE_NEWNET) == 0 || unshare_as_root()) &&
	                 ip("link add near type veth peer name far") && ip("link set far up");
	if (!have_namespace)
		fputs("NO RIGHT TO MAKE A NETWORK NAMESPACE, OR NO `ip`: what leaves for the wire is not tested\n",
		      stderr);
	return 0;
}

/* The kernel looks at its links from time to time, up to a second later. */
static bool near_has_link(bool wanted)
{
	struct ifreq request = { .ifr_name = "near" };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), tries = 2000;
	bool has = !wanted;
	while (has != wanted && tries-- > 0 && ioctl(fd, SIOCGIFFLAGS, &request) == 0) {
		has = request.ifr_flags & IFF_RUNNING;
		poll(NULL, 0, has == wanted ? 0 : 5);
	}
	close(fd);
	return has == wanted;
}

/* The far end, listening. */
static int setup(void **state)
{
	static int fd;
	*state = &fd;
	if (!have_namespace)
		return 0;
	const struct sockaddr_ll address = { .sll_family = AF_PACKET,
		                             .sll_protocol = htons(ETH_P_ALL),
		                             .sll_ifindex = (int)if_nametoindex("far") };
	if (!ip("link set near up") || !near_has_link(true) || !ip("address flush dev near") ||
	    !ip("address add " NEAR "/24 dev near") /* and no `broadcast +` */ || !ip(NEIGHBOUR))
		return -1;
	fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	return bind(fd, (const struct sockaddr *)&address, sizeof address);
}

static int teardown(void **state)
{
	if (have_namespace)
		close(*(int *)*state);
	return 0;
}

static struct wol usual(void)
{
	struct wol wol = { .interface = "near" };
	if (!have_namespace)
		skip();
	memcpy(wol.mac, MAC, WOL_MAC);
	wol.unicast.s_addr = inet_addr(FAR);
	return wol;
}

struct datagram {
	_Alignas(4) uint8_t raw[2 + 1500]; /* so that the IP header stands where its words are aligned */
	char to_mac[WOL_MAC];
	char to[INET_ADDRSTRLEN];
	int port;
	const uint8_t *data;
	size_t len;
};

static bool parse_datagram(struct datagram *d, size_t size)
{
	const struct ether_header *ether = (const void *)(d->raw + 2);
	const struct ip *header = (const void *)(d->raw + 2 + sizeof *ether);
	const struct udphdr *udp = (const void *)(d->raw + 2 + sizeof *ether + sizeof *header);
	size_t before = sizeof *ether + sizeof *header + sizeof *udp;
	char from[INET_ADDRSTRLEN];
	if (size < before || ether->ether_type != htons(ETHERTYPE_IP) || header->ip_p != IPPROTO_UDP)
		return false; /* ARP, IPv6 and its router solicitations */
	assert_string_equal(inet_ntop(AF_INET, &header->ip_src, from, sizeof from), NEAR);
	memcpy(d->to_mac, ether->ether_dhost, WOL_MAC);
	inet_ntop(AF_INET, &header->ip_dst, d->to, sizeof d->to);
	d->port = ntohs(udp->dest);
	d->data = d->raw + 2 + before;
	d->len = ntohs(udp->len) - sizeof *udp;
	assert_int_equal(size, before + d->len);
	return true;
}

/* The next one at the far end. */
static void receive(int fd, struct datagram *ret)
{
	ssize_t n;
	do {
		struct pollfd waits = { .fd = fd, .events = POLLIN };
		assert_int_equal(poll(&waits, 1, 10000), 1);
		n = recv(fd, ret->raw + 2, sizeof ret->raw - 2, 0);
		assert_true(n > 0);
	} while (!parse_datagram(ret, (size_t)n));
}

static void expect(int fd, const char *to, const char *to_mac, size_t len)
{
	static const int ports[] = { 9, 7 };
	for (int i = 0; i < 2; i++) {
		struct datagram d = { .len = 0 };
		receive(fd, &d);
		assert_string_equal(d.to, to);
		assert_memory_equal(d.to_mac, to_mac, WOL_MAC);
		assert_int_equal(d.port, ports[i]);
		assert_int_equal(d.len, len);
		assert_memory_equal(d.data, magic, len);
	}
}

/* Nothing came before the packet that this sends itself. */
static void expect_no_more(int fd)
{
	const struct sockaddr_in to = { .sin_family = AF_INET,
		                        .sin_port = htons(4242),
		                        .sin_addr.s_addr = inet_addr(FAR) };
	int own = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct datagram d = { .len = 0 };
	assert_int_equal(sendto(own, "end", 3, 0, (const struct sockaddr *)&to, sizeof to), 3);
	close(own);
	receive(fd, &d);
	assert_int_equal(d.port, 4242);
}

#define ALL "\xff\xff\xff\xff\xff\xff"

static void test_six_packets(void **state)
{
	struct wol wol = usual();
	int fd = *(int *)*state;
	struct err err = { "" };
	assert_int_equal(wol_send(&wol, &err), 6);
	assert_string_equal(err.text, "");
	expect(fd, "10.77.0.255", ALL, MAGIC);
	expect(fd, "255.255.255.255", ALL, MAGIC);
	expect(fd, FAR, MAC, MAGIC);
	expect_no_more(fd);
}

static void test_six_packets_with_a_password(void **state)
{
	struct wol wol = usual();
	int fd = *(int *)*state;
	wol.secure_on = (const uint8_t *)SECURE_ON;
	assert_int_equal(wol_send(&wol, NULL), 6);
	expect(fd, "10.77.0.255", ALL, WOL_PACKET_MAX);
	expect(fd, "255.255.255.255", ALL, WOL_PACKET_MAX);
	expect(fd, FAR, MAC, WOL_PACKET_MAX);
	expect_no_more(fd);
}

static void test_unicast_is_not_known(void **state)
{
	struct wol wol = usual();
	int fd = *(int *)*state;
	wol.unicast.s_addr = INADDR_ANY;
	assert_int_equal(wol_send(&wol, NULL), 4);
	expect(fd, "10.77.0.255", ALL, MAGIC);
	expect(fd, "255.255.255.255", ALL, MAGIC);
	expect_no_more(fd);
}

/* RFC 3021 */
static void test_no_broadcast_address(void **state)
{
	struct wol wol = usual();
	int fd = *(int *)*state;
	assert_true(ip("address flush dev near") && ip("address add " NEAR "/32 dev near") &&
	            ip("route add " FAR " dev near") && ip(NEIGHBOUR));
	assert_int_equal(wol_send(&wol, NULL), 4);
	expect(fd, "255.255.255.255", ALL, MAGIC);
	expect(fd, FAR, MAC, MAGIC);
	expect_no_more(fd);
}

/* An interface that broadcasts nothing: 127.255.255.255 would be the machine itself. */
static void test_loopback_has_none(void **state)
{
	struct wol wol = usual();
	(void)state;
	wol.interface = "lo";
	wol.unicast.s_addr = htonl(INADDR_LOOPBACK);
	assert_true(ip("link set lo up"));
	assert_int_equal(wol_send(&wol, NULL), 4);
}

static void test_interface_of_the_routes(void **state)
{
	struct wol wol = usual();
	int fd = *(int *)*state;
	struct err err = { "" };
	wol.interface = NULL;
	wol.unicast.s_addr = INADDR_ANY;
	assert_int_equal(wol_send(&wol, &err), -ENETUNREACH);
	assert_string_equal(err.text, "no route for a broadcast: name the interface (interface = \"eth0\") that the "
	                              "machine is reached by");
	wol.unicast.s_addr = inet_addr(FAR); /* this one has a route; that the others were refused is no error */
	assert_int_equal(wol_send(&wol, NULL), 2);
	expect(fd, FAR, MAC, MAGIC);
	assert_true(ip("route add default dev near"));
	assert_int_equal(wol_send(&wol, NULL), 4);
	assert_true(ip("route del default dev near"));
	expect(fd, "255.255.255.255", ALL, MAGIC);
	expect(fd, FAR, MAC, MAGIC);
	expect_no_more(fd);
}

/* As the service runs: no capability, and of no use to become root again. */
static void test_without_privilege(void **state)
{
	struct wol wol = usual();
	int fd = *(int *)*state, status;
	pid_t pid = fork();
	if (pid == 0) {
		struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
		struct __user_cap_data_struct none[2] = { { 0, 0, 0 }, { 0, 0, 0 } };
		_exit(syscall(SYS_capset, &header, none) < 0 ? 99 : wol_send(&wol, NULL));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WEXITSTATUS(status), 6);
	expect(fd, "10.77.0.255", ALL, MAGIC);
	expect(fd, "255.255.255.255", ALL, MAGIC);
	expect(fd, FAR, MAC, MAGIC);
}

static void assert_refused(int code, const char *text)
{
	struct wol wol = usual();
	struct err err = { "" };
	assert_int_equal(wol_send(&wol, &err), code);
	assert_string_equal(err.text, text);
}

static void test_bad_interfaces(void **state)
{
	struct wol wol = usual();
	struct err err = { "" };
	(void)state;
	wol.interface = "eth9";
	assert_int_equal(wol_send(&wol, &err), -ENODEV);
	assert_string_equal(err.text, "no interface \"eth9\" here: `ip link` lists those that there are");
	wol.interface = "an-interface-with-far-too-long-a-name";
	assert_int_equal(wol_send(&wol, NULL), -ENODEV);
	assert_true(ip("address flush dev near"));
	assert_refused(-ENETUNREACH, "interface \"near\" has no IPv4 address: `ip address show near`");
	assert_true(ip("address add " NEAR "/24 dev near") && ip("link set near down"));
	assert_refused(-ENETDOWN, "interface \"near\" is down: ip link set near up");
	assert_true(ip("link set near up") && ip("link set far down") && near_has_link(false));
	assert_refused(-ENETDOWN, "interface \"near\" has no link: is its cable in, or its Wi-Fi joined?");
	assert_true(ip("link set far up"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mac),
		cmocka_unit_test(test_secure_on),
		cmocka_unit_test(test_packet),
		TEST(test_six_packets),
		TEST(test_six_packets_with_a_password),
		TEST(test_unicast_is_not_known),
		TEST(test_no_broadcast_address),
		TEST(test_loopback_has_none),
		TEST(test_interface_of_the_routes),
		TEST(test_without_privilege),
		TEST(test_bad_interfaces),
	};
	return cmocka_run_group_tests(tests, group_setup, NULL);
}
