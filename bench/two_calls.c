/* The floor of dvdcli: a program that sends one request to a socket, waits for the answer, and is nothing
 * else.
 *
 *   two_calls SOCKET PATH BODY
 */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char** argv) {
  static char buffer[65536];
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (argc != 4 || strlen(argv[1]) >= sizeof(address.sun_path)) return 2;
  strcpy(address.sun_path, argv[1]);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (const struct sockaddr*)&address, sizeof(address)) != 0) return 1;
  const int length = snprintf(buffer, sizeof(buffer),
                              "POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                              "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                              argv[2], strlen(argv[3]), argv[3]);
  if (length < 0 || (size_t)length >= sizeof(buffer) || write(fd, buffer, (size_t)length) != length) return 1;
  size_t got = 0;
  while (got < sizeof(buffer) - 1) {
    const ssize_t n = read(fd, buffer + got, sizeof(buffer) - 1 - got);
    if (n <= 0) break;
    got += (size_t)n;
  }
  buffer[got] = '\0';
  return strncmp(buffer, "HTTP/1.1 200 ", 13) == 0 ? 0 : 1;
}
