/* Two threads that call at once with one client, for tests/e2e/test_c_api.py:
 *
 *   c_two_threads SOCKET PATH BODY1 BODY2
 *
 * Each round, both POST their body to PATH, and a line for each says what came: number, code, outcome, HTTP
 * status. A line on standard input begins the next round, its end ends the program. */
#include <dvdi/dvdi.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

struct caller {
  dvdi_client* client;
  const char* path;
  const char* body;
  dvdi_answer* answer;
};

static void* call(void* argument) {
  struct caller* self = argument;
  self->answer = dvdi_call(self->client, "POST", self->path, self->body, strlen(self->body), 60000, NULL);
  return NULL;
}

int main(int argc, char** argv) {
  static const char* const outcomes[] = {"none", "not_sent", "refused", "unknown"};
  if (argc != 5) return 2;
  dvdi_client* client = dvdi_client_new(argv[1]);
  if (client == NULL) return 1;
  do {
    struct caller callers[2] = {{client, argv[2], argv[3], NULL}, {client, argv[2], argv[4], NULL}};
    pthread_t threads[2];
    for (int i = 0; i < 2; ++i) {
      if (pthread_create(&threads[i], NULL, call, &callers[i]) != 0) return 1;
    }
    for (int i = 0; i < 2; ++i) {
      pthread_join(threads[i], NULL);
      const dvdi_answer* answer = callers[i].answer;
      printf("%d %s %s %d\n", i, dvdi_code_name(dvdi_answer_code(answer)),
             outcomes[dvdi_answer_outcome(answer)], dvdi_answer_status(answer));
      if (dvdi_answer_code(answer) != DVDI_OK) fprintf(stderr, "%s\n", dvdi_answer_text(answer));
      dvdi_answer_free(callers[i].answer);
    }
    fflush(stdout);
  } while (getchar() == '\n');
  dvdi_client_free(client);
  return 0;
}
