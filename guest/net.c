#include "net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "handle.h"

struct request {
  struct nlmsghdr header;
  union {
    struct ifinfomsg link;
    struct ifaddrmsg address;
    struct rtmsg route;
  };
  char attributes[256];
};

static void begin(struct request *request, uint16_t type, uint16_t flags, size_t body) {
  memset(request, 0, sizeof *request);
  request->header.nlmsg_len = (uint32_t)NLMSG_LENGTH(body);
  request->header.nlmsg_type = type;
  request->header.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags);
}

static void add(struct request *request, uint16_t type, const void *data, size_t length) {
  struct rtattr *attribute = (struct rtattr *)((char *)request + NLMSG_ALIGN(request->header.nlmsg_len));
  attribute->rta_type = type;
  attribute->rta_len = (uint16_t)RTA_LENGTH(length);
  memcpy(RTA_DATA(attribute), data, length);
  request->header.nlmsg_len = (uint32_t)(NLMSG_ALIGN(request->header.nlmsg_len) + RTA_ALIGN(attribute->rta_len));
}

/* Returns 0 or an errno. */
static int ask(struct request *request) {
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  struct {
    struct nlmsghdr header;
    struct nlmsgerr error;
    char more[512];
  } answer;
  ssize_t got = -1;
  if (fd >= 0 && send(fd, request, request->header.nlmsg_len, 0) >= 0) got = recv(fd, &answer, sizeof answer, 0);
  int because = got < 0 ? errno : 0;
  if (fd >= 0) close(fd);
  if (because) return because;
  return (size_t)got >= NLMSG_LENGTH(sizeof answer.error) && answer.header.nlmsg_type == NLMSG_ERROR ? -answer.error.error : EPROTO;
}

static int link_up(const char *name, uint32_t mtu) {
  struct request request;
  begin(&request, RTM_NEWLINK, 0, sizeof request.link);
  request.link.ifi_index = (int)if_nametoindex(name);
  request.link.ifi_flags = IFF_UP;
  request.link.ifi_change = IFF_UP;
  if (!request.link.ifi_index) return ENODEV;
  if (mtu) add(&request, IFLA_MTU, &mtu, sizeof mtu);
  return ask(&request);
}

/* "ADDRESS/BITS"; returns the family, or 0. */
static int parse_prefix(const char *text, unsigned char address[16], unsigned *bits) {
  char host[64];
  if (sscanf(text, "%63[^/]/%u", host, bits) != 2) return 0;
  if (inet_pton(AF_INET, host, address) == 1) return *bits <= 32 ? AF_INET : 0;
  return inet_pton(AF_INET6, host, address) == 1 && *bits <= 128 ? AF_INET6 : 0;
}

static int add_address(const char *name, const char *text) {
  unsigned char address[16];
  unsigned bits;
  int family = parse_prefix(text, address, &bits);
  struct request request;
  begin(&request, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, sizeof request.address);
  request.address.ifa_family = (uint8_t)family;
  request.address.ifa_prefixlen = (uint8_t)bits;
  request.address.ifa_index = if_nametoindex(name);
  /* The host gives each address once: nobody needs to be asked whether it is free. */
  request.address.ifa_flags = family == AF_INET6 ? IFA_F_NODAD : 0;
  if (!family) return EINVAL;
  if (!request.address.ifa_index) return ENODEV;
  add(&request, IFA_LOCAL, address, family == AF_INET ? 4 : 16);
  add(&request, IFA_ADDRESS, address, family == AF_INET ? 4 : 16);
  return ask(&request);
}

static int add_route(const char *name, const char *to, const char *gateway) {
  unsigned char address[16], via[16];
  unsigned bits;
  int family = parse_prefix(to, address, &bits);
  uint32_t index = if_nametoindex(name);
  bool has_gateway = strcmp(gateway, "-") != 0;
  if (!family || (has_gateway && inet_pton(family, gateway, via) != 1)) return EINVAL;
  if (!index) return ENODEV;
  size_t size = family == AF_INET ? 4 : 16;
  struct request request;
  begin(&request, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sizeof request.route);
  request.route.rtm_family = (uint8_t)family;
  request.route.rtm_dst_len = (uint8_t)bits;
  request.route.rtm_table = RT_TABLE_MAIN;
  request.route.rtm_protocol = RTPROT_STATIC;
  request.route.rtm_scope = has_gateway ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK;
  request.route.rtm_type = RTN_UNICAST;
  if (bits) add(&request, RTA_DST, address, size);
  if (has_gateway) add(&request, RTA_GATEWAY, via, size);
  add(&request, RTA_OIF, &index, sizeof index);
  return ask(&request);
}

static void check(int because, const char *what, const char *thing) {
  if (because) note("cannot set %s %s: %s", what, thing, strerror(because));
}

void net_up(const struct spec *spec) {
  check(link_up("lo", 0), "up", "lo");
  char name[IF_NAMESIZE], one[64], two[64];
  for (int i = 0; i < spec->addresses_count; i++) {
    bool whole = sscanf(spec->addresses[i], "%15s %63s", name, one) == 2;
    if (whole) check(link_up(name, spec->mtu), "up", name);
    check(whole ? add_address(name, one) : EINVAL, "address", spec->addresses[i]);
  }
  for (int i = 0; i < spec->routes_count; i++) {
    bool whole = sscanf(spec->routes[i], "%15s %63s %63s", name, one, two) == 3;
    check(whole ? add_route(name, one, two) : EINVAL, "route", spec->routes[i]);
  }
}
