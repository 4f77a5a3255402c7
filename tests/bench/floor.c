/*
 * The floor: the least time in which the kernel's IPVS table can be written and read, for what we
 * measure ourselves against. Messages are built before the clock starts, 120 KB go with one send,
 * only the last one is acknowledged, and what the kernel answers is counted, not decoded.
 *
 *     floor VIRTUAL_SERVERS REAL_SERVERS_EACH [fill]
 *
 * makes that table in the network namespace that it runs in, which must have none, and prints the
 * milliseconds of each step as one JSON object; with "fill" it only makes the table. The table is
 * that of tables.py, and so are the two changes of every hundredth real server: another weight, and
 * another address.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/genetlink.h>
#include <linux/ip_vs.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define FIRST_VIP 0x0a0a000au /* 10.10.0.10 */
#define FIRST_REAL_SERVER 0x0a800000u /* 10.128.0.0 */
#define FIRST_REPLACEMENT 0x0ac00000u /* 10.192.0.0 */
#define PORT 80
#define WEIGHTS 100
#define OTHER_WEIGHT 200
#define EVERY 100

#define SEND_BYTES (120 * 1024)
#define RECEIVE_BYTES (64 * 1024)
#define SOCKET_BYTES (8 << 20)

struct buffer {
	char *data;
	size_t size;
	size_t used;
	size_t last; /* where the last message begins */
};

static int netlink;
static __u16 family;
static __u32 sequence;
static char received[RECEIVE_BYTES];

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static double milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

/* ------------------------------------------------------------------------------------------------
 * Build
 */

static void *append(struct buffer *to, size_t length)
{
	size_t aligned = NLMSG_ALIGN(length);
	char *place;

	if (to->used + aligned > to->size) {
		to->size = 2 * (to->used + aligned);
		to->data = realloc(to->data, to->size);
		if (!to->data)
			fail("realloc");
	}
	place = to->data + to->used;
	memset(place, 0, aligned);
	to->used += aligned;
	return place;
}

static void begin(struct buffer *to, __u16 type, __u8 command, __u16 flags)
{
	struct nlmsghdr *header;
	struct genlmsghdr *generic;

	to->last = to->used;
	header = append(to, sizeof(*header) + sizeof(*generic));
	header->nlmsg_type = type;
	header->nlmsg_flags = NLM_F_REQUEST | flags;
	header->nlmsg_seq = ++sequence;
	generic = NLMSG_DATA(header);
	generic->cmd = command;
	generic->version = IPVS_GENL_VERSION;
}

static void end(struct buffer *to)
{
	((struct nlmsghdr *)(to->data + to->last))->nlmsg_len = to->used - to->last;
}

static void put(struct buffer *to, __u16 kind, const void *value, size_t length)
{
	struct nlattr *attribute = append(to, NLA_HDRLEN + length);

	attribute->nla_len = NLA_HDRLEN + length;
	attribute->nla_type = kind;
	memcpy((char *)attribute + NLA_HDRLEN, value, length);
}

static void put_u16(struct buffer *to, __u16 kind, __u16 value)
{
	put(to, kind, &value, sizeof(value));
}

static void put_u32(struct buffer *to, __u16 kind, __u32 value)
{
	put(to, kind, &value, sizeof(value));
}

/* The kernel's union nf_inet_addr: 16 bytes, of which IPv4 uses the first four. */
static void put_address(struct buffer *to, __u16 kind, __u32 address)
{
	__u32 whole[4] = { htonl(address) };

	put(to, kind, whole, sizeof(whole));
}

static size_t nest(struct buffer *to, __u16 kind)
{
	size_t start = to->used;

	put(to, kind | NLA_F_NESTED, "", 0);
	return start;
}

static void unnest(struct buffer *to, size_t start)
{
	((struct nlattr *)(to->data + start))->nla_len = to->used - start;
}

static void put_service(struct buffer *to, unsigned int service, int whole)
{
	struct ip_vs_flags flags = { 0, ~0u };
	size_t start = nest(to, IPVS_CMD_ATTR_SERVICE);

	put_u16(to, IPVS_SVC_ATTR_AF, AF_INET);
	put_u16(to, IPVS_SVC_ATTR_PROTOCOL, IPPROTO_TCP);
	put_address(to, IPVS_SVC_ATTR_ADDR, FIRST_VIP + service);
	put_u16(to, IPVS_SVC_ATTR_PORT, htons(PORT));
	if (whole) {
		put(to, IPVS_SVC_ATTR_SCHED_NAME, "wlc", sizeof("wlc"));
		put(to, IPVS_SVC_ATTR_FLAGS, &flags, sizeof(flags));
		put_u32(to, IPVS_SVC_ATTR_TIMEOUT, 0);
		put_u32(to, IPVS_SVC_ATTR_NETMASK, ~0u);
	}
	unnest(to, start);
}

static void put_dest(struct buffer *to, __u32 address, __u32 weight)
{
	size_t start = nest(to, IPVS_CMD_ATTR_DEST);

	put_address(to, IPVS_DEST_ATTR_ADDR, address);
	put_u16(to, IPVS_DEST_ATTR_PORT, htons(PORT));
	put_u32(to, IPVS_DEST_ATTR_FWD_METHOD, IP_VS_CONN_F_DROUTE);
	put_u32(to, IPVS_DEST_ATTR_WEIGHT, weight);
	put_u32(to, IPVS_DEST_ATTR_U_THRESH, 0);
	put_u32(to, IPVS_DEST_ATTR_L_THRESH, 0);
	put_u16(to, IPVS_DEST_ATTR_ADDR_FAMILY, AF_INET);
	unnest(to, start);
}

static void service_message(struct buffer *to, unsigned int service)
{
	begin(to, family, IPVS_CMD_NEW_SERVICE, 0);
	put_service(to, service, 1);
	end(to);
}

static void dest_message(struct buffer *to, __u8 command, unsigned int service, __u32 address,
			 __u32 weight)
{
	begin(to, family, command, 0);
	put_service(to, service, 0);
	put_dest(to, address, weight);
	end(to);
}

/* Ask for the acknowledgement of the last message, as all requests that are not dumps do. */
static void acknowledge(struct buffer *of)
{
	((struct nlmsghdr *)(of->data + of->last))->nlmsg_flags |= NLM_F_ACK;
}

/* ------------------------------------------------------------------------------------------------
 * Talk
 */

static void send_bytes(const char *data, size_t length)
{
	if (send(netlink, data, length, 0) != (ssize_t)length)
		fail("send");
}

/* Send whole messages, as many as SEND_BYTES hold with each send. */
static void send_all(const struct buffer *of)
{
	size_t start = 0, at = 0;

	while (at < of->used) {
		size_t next = at + NLMSG_ALIGN(((struct nlmsghdr *)(of->data + at))->nlmsg_len);

		if (next - start > SEND_BYTES) {
			send_bytes(of->data + start, at - start);
			start = at;
		}
		at = next;
	}
	send_bytes(of->data + start, at - start);
}

/* Receive until the answer is complete; returns how many messages carried data. */
static unsigned int receive_all(void)
{
	unsigned int count = 0;

	for (;;) {
		int left = recv(netlink, received, sizeof(received), 0);
		struct nlmsghdr *header = (struct nlmsghdr *)received;

		if (left < 0)
			fail("recv");
		for (; NLMSG_OK(header, left); header = NLMSG_NEXT(header, left)) {
			if (header->nlmsg_type == NLMSG_DONE)
				return count;
			if (header->nlmsg_type == NLMSG_ERROR) {
				errno = -((struct nlmsgerr *)NLMSG_DATA(header))->error;
				if (errno)
					fail("the kernel refused");
				return count;
			}
			count++;
		}
	}
}

static void open_netlink(void)
{
	struct buffer request = { 0 };
	struct nlattr *attribute;
	int bytes = SOCKET_BYTES, one = 1, left;

	netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
	if (netlink < 0)
		fail("socket");
	setsockopt(netlink, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes));
	setsockopt(netlink, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes));
	setsockopt(netlink, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof(one));
	begin(&request, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 0);
	put(&request, CTRL_ATTR_FAMILY_NAME, IPVS_GENL_NAME, sizeof(IPVS_GENL_NAME));
	end(&request);
	send_all(&request);
	left = recv(netlink, received, sizeof(received), 0) - NLMSG_LENGTH(GENL_HDRLEN);
	attribute = (struct nlattr *)(received + NLMSG_LENGTH(GENL_HDRLEN));
	while (left >= NLA_HDRLEN && attribute->nla_type != CTRL_ATTR_FAMILY_ID) {
		left -= NLA_ALIGN(attribute->nla_len);
		attribute = (struct nlattr *)((char *)attribute + NLA_ALIGN(attribute->nla_len));
	}
	if (left < NLA_HDRLEN)
		fail("no IPVS");
	memcpy(&family, (char *)attribute + NLA_HDRLEN, sizeof(family));
	free(request.data);
}

/* ------------------------------------------------------------------------------------------------
 * Measure
 */

static double write_table(struct buffer *messages)
{
	double start = milliseconds();

	send_all(messages);
	receive_all();
	return milliseconds() - start;
}

/* Send requests for dumps, one after the other as the kernel wants it, and count the answers. */
static double read_table(const struct buffer *requests, unsigned int expected)
{
	double start = milliseconds();
	unsigned int count = 0;
	size_t at = 0;

	while (at < requests->used) {
		struct nlmsghdr *request = (struct nlmsghdr *)(requests->data + at);

		send_bytes((char *)request, request->nlmsg_len);
		count += receive_all();
		at += NLMSG_ALIGN(request->nlmsg_len);
	}
	if (count != expected) {
		fprintf(stderr, "read %u records instead of %u\n", count, expected);
		exit(1);
	}
	return milliseconds() - start;
}

static void ask_for_services(struct buffer *to)
{
	begin(to, family, IPVS_CMD_GET_SERVICE, NLM_F_DUMP);
	end(to);
}

static void ask_for_dests(struct buffer *to, unsigned int service)
{
	begin(to, family, IPVS_CMD_GET_DEST, NLM_F_DUMP);
	put_service(to, service, 0);
	end(to);
}

int main(int argc, char **argv)
{
	struct buffer table = { 0 }, all = { 0 }, weights = { 0 }, replacement = { 0 };
	struct buffer touched = { 0 };
	unsigned int services, each, service, index, number, changed = 0, asked = 0;
	double start, created, dumped, both, reweighted, replaced, reread;

	if (argc < 3)
		return 2;
	services = atoi(argv[1]);
	each = atoi(argv[2]);
	open_netlink();
	ask_for_services(&all);
	for (service = 0; service < services; service++) {
		unsigned int before = changed;

		service_message(&table, service);
		ask_for_dests(&all, service);
		for (index = 0; index < each; index++) {
			number = service * each + index;
			dest_message(&table, IPVS_CMD_NEW_DEST, service, FIRST_REAL_SERVER + number,
				     1 + number % WEIGHTS);
			if (number % EVERY)
				continue;
			changed++;
			dest_message(&weights, IPVS_CMD_SET_DEST, service,
				     FIRST_REAL_SERVER + number, OTHER_WEIGHT);
			dest_message(&replacement, IPVS_CMD_NEW_DEST, service,
				     FIRST_REPLACEMENT + number, OTHER_WEIGHT);
			dest_message(&replacement, IPVS_CMD_DEL_DEST, service,
				     FIRST_REAL_SERVER + number, OTHER_WEIGHT);
		}
		if (changed > before) {
			ask_for_dests(&touched, service);
			asked++;
		}
	}
	acknowledge(&table);
	acknowledge(&weights);
	acknowledge(&replacement);

	start = milliseconds();
	created = write_table(&table);
	if (argc > 3)
		return 0;
	dumped = read_table(&all, services + services * each);
	both = milliseconds() - start;
	reweighted = write_table(&weights);
	reread = read_table(&touched, asked * each);
	replaced = write_table(&replacement);
	printf("{\"create\": %.3f, \"dump\": %.3f, \"create and dump\": %.3f, \"weights\": %.3f, "
	       "\"replace\": %.3f, \"dump what was touched\": %.3f}\n",
	       created, dumped, both, reweighted, replaced, reread);
	return 0;
}
