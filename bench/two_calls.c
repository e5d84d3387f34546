/* The floor of dvdcli: a program that sends one request to a socket, waits for the answer, and is nothing
 * else.
 *
 *   two_calls SOCKET PATH BODY
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char** argv) {
  char buffer[65536];
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  int fd, length;
  ssize_t n;
  size_t got = 0;
  if (argc != 4 || strlen(argv[1]) >= sizeof(address.sun_path)) return 2;
  strcpy(address.sun_path, argv[1]);
  fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (const struct sockaddr*)&address, sizeof(address)) != 0) return 1;
  length = snprintf(
      buffer, sizeof(buffer),
      "POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
      "Content-Length: %zu\r\n\r\n%s",
      argv[2], strlen(argv[3]), argv[3]);
  if (length < 0 || (size_t)length >= sizeof(buffer) || write(fd, buffer, (size_t)length) != length) return 1;
  while (got < sizeof(buffer) - 1 && (n = read(fd, buffer + got, sizeof(buffer) - 1 - got)) > 0)
    got += (size_t)n;
  buffer[got] = '\0';
  return strncmp(buffer, "HTTP/1.1 200 ", 13) == 0 ? 0 : 1;
}
