// Sends frames as they are over a link: send-frames LINK TIMES HEX…; for tests of what a machine may not send.
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

int main(int argc, char **argv) {
  if (argc < 4) return 2;
  int socket_fd = socket(AF_PACKET, SOCK_RAW, htons(3));
  struct sockaddr_ll to = {.sll_family = AF_PACKET, .sll_ifindex = (int)if_nametoindex(argv[1])};
  for (int i = 3; i < argc; i++) {
    unsigned char frame[2048];
    size_t bytes = strlen(argv[i]) / 2;
    for (size_t at = 0; at < bytes && at < sizeof frame; at++) {
      char digits[3] = {argv[i][2 * at], argv[i][2 * at + 1], 0};
      frame[at] = (unsigned char)strtoul(digits, NULL, 16);
    }
    for (int time = 0; time < atoi(argv[2]); time++) {
      if (sendto(socket_fd, frame, bytes, 0, (struct sockaddr *)&to, sizeof to) < 0) {
        perror("send");
        return 1;
      }
    }
  }
  return 0;
}
