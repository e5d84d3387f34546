/* Asks dvdid for the volumes of a container, shows what is to be mounted where, and gives them back.
 *
 *   cc -std=c99 prepare.c -o prepare $(pkg-config --cflags --libs dvdi)
 *   ./prepare OWNER ID VOLUMES.json [SOCKET]
 *
 * OWNER and ID name the container; VOLUMES.json is what `dvdi run` takes (docs/requests.md), ../volumes.json
 * for example. A launcher would, between prepare and cleanup, make the mounts, tell the daemon the process of
 * its container (POST /v1/isolate), and wait for its end. */
#include <dvdi/dvdi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_BYTES = 1 << 20, TIMEOUT_MS = 120000 };

/* Takes the answer and says whether it is a success. */
static int done(const char* what, dvdi_answer* answer) {
  const dvdi_code code = dvdi_answer_code(answer);
  if (code == DVDI_OK) {
    printf("%s: %s\n", what, dvdi_answer_body(answer, NULL));
  } else {
    fprintf(stderr, "%s: %s: %s\n", what, dvdi_code_name(code), dvdi_answer_text(answer));
    /* Every call may be repeated as it was; a program that goes on would do so for these. */
    if (code == DVDI_UNAVAILABLE || dvdi_answer_outcome(answer) == DVDI_OUTCOME_UNKNOWN)
      fprintf(stderr, "%s: trying again can help\n", what);
  }
  dvdi_answer_free(answer);
  return code == DVDI_OK;
}

static int post(dvdi_client* client, const char* what, const char* path, const char* body) {
  return done(what, dvdi_call(client, "POST", path, body, strlen(body), TIMEOUT_MS, NULL));
}

/* The whole file, which the caller frees. */
static char* contents(const char* path) {
  FILE* file = fopen(path, "rb");
  char* text = malloc(MOST_BYTES + 1);
  size_t size = 0;
  if (file != NULL && text != NULL) size = fread(text, 1, MOST_BYTES, file);
  if (file == NULL || text == NULL || ferror(file) || size == MOST_BYTES ||
      memchr(text, '\0', size) != NULL) {
    fprintf(stderr, "%s cannot be read, or is no such file\n", path);
    free(text);
    text = NULL;
  } else {
    text[size] = '\0';
  }
  if (file != NULL) fclose(file);
  return text;
}

/* What can stand in a JSON text as it is. */
static int is_plain(const char* text) {
  static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:/";
  return text[0] != '\0' && text[strspn(text, plain)] == '\0';
}

int main(int argc, char** argv) {
  if (argc < 4 || argc > 5 || !is_plain(argv[1]) || !is_plain(argv[2])) {
    fprintf(stderr, "usage: %s OWNER ID VOLUMES.json [SOCKET]\n", argv[0]);
    return 2;
  }
  const char *owner = argv[1], *id = argv[2];
  static const char format[] = "{\"owner\": \"%s\", \"container_id\": {\"value\": \"%s\"}%s%s}";
  int good = 0;
  char* volumes = contents(argv[3]);
  const size_t size = (volumes == NULL ? 0 : strlen(volumes)) + strlen(owner) + strlen(id) + 100;
  char* body = malloc(size);
  dvdi_client* client = dvdi_client_new(argc == 5 ? argv[4] : NULL);

  if (volumes != NULL && body != NULL && client != NULL &&
      done("healthz", dvdi_call(client, "GET", "/healthz", NULL, 0, TIMEOUT_MS, NULL))) {
    snprintf(body, size, format, owner, id, ", \"request\": ", volumes);
    good = post(client, "prepare", "/v1/prepare", body);
    /* Also after a prepare that failed: without an answer, nobody knows whether it did. */
    snprintf(body, size, format, owner, id, "", "");
    good = post(client, "cleanup", "/v1/cleanup", body) && good;
  }
  dvdi_client_free(client);
  free(body);
  free(volumes);
  return good ? 0 : 1;
}
