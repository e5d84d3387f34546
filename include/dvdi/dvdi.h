/* libdvdi: the calls of dvdid, dvdi's node daemon, from C.
 *
 * A call is what docs/openapi.yaml describes: a method, an address and a JSON document each way. This library
 * brings it to the daemon's Unix socket with a deadline, lets another thread cancel it, and takes errors
 * apart.
 *
 *   dvdi_client *client = dvdi_client_new(NULL);
 *   dvdi_answer *answer = dvdi_call(client, "POST", "/v1/cleanup", body, strlen(body), 60000, NULL);
 *   if (dvdi_answer_code(answer) != DVDI_OK) fprintf(stderr, "%s\n", dvdi_answer_text(answer));
 *   dvdi_answer_free(answer);
 *   dvdi_client_free(client);
 *
 * Every function may be called from any thread, at the same time, with the same client; an answer and a
 * cancellation belong to whoever made them. No function throws, writes to standard output or error, or
 * changes signal handlers. Texts are UTF-8 and end with a NUL; those that a function returns live as long as
 * the object that they were asked of. Functions that free accept NULL. */
#ifndef DVDI_DVDI_H
#define DVDI_DVDI_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define DVDI_API __attribute__((visibility("default")))
#else
#define DVDI_API
#endif

/* What went wrong; docs/errors.md says what each means and what to do. The values stay as they are; new ones
 * may come. */
typedef enum dvdi_code {
  DVDI_OK = 0,
  DVDI_INVALID_ARGUMENT = 1,
  DVDI_NOT_FOUND = 2,
  DVDI_ALREADY_EXISTS = 3,
  DVDI_FAILED_PRECONDITION = 4,
  DVDI_CONFLICT = 5,
  DVDI_PERMISSION_DENIED = 6,
  DVDI_RESOURCE_EXHAUSTED = 7,
  DVDI_UNAVAILABLE = 8, /* nobody listens on the socket, or a driver is away: trying again can help */
  DVDI_DEADLINE_EXCEEDED = 9,
  DVDI_CANCELLED = 10,
  DVDI_DRIVER_ERROR = 11,
  DVDI_DRIVER_VIOLATION = 12,
  DVDI_UNSUPPORTED = 13,
  DVDI_CORRUPTED = 14,
  DVDI_IO = 15,
  DVDI_INTERNAL = 16
} dvdi_code;

/* What is known of the effect of a call that failed. */
typedef enum dvdi_outcome {
  DVDI_OUTCOME_NONE = 0,     /* nothing is said */
  DVDI_OUTCOME_NOT_SENT = 1, /* it had no effect */
  DVDI_OUTCOME_REFUSED = 2,  /* it was answered with an error */
  DVDI_OUTCOME_UNKNOWN = 3   /* it may have had its effect: every call may be repeated as it was */
} dvdi_outcome;

typedef struct dvdi_client dvdi_client;
typedef struct dvdi_cancellation dvdi_cancellation;
typedef struct dvdi_answer dvdi_answer;

/* "0.1.0": of the library that is loaded. */
DVDI_API const char* dvdi_version(void);
/* "not_found"; "unknown" for a number that is none. */
DVDI_API const char* dvdi_code_name(dvdi_code code);

/* `socket` is the path of the daemon's socket; NULL: the environment's DVDI_SOCKET, else
 * /run/dvdi/dvdid.sock. Connects to nothing: a call makes a connection, which stays open for the next one (64
 * of them at most, for calls at the same time). A daemon that was restarted meanwhile is found again, and a
 * child of fork() makes its own. NULL: no memory. */
DVDI_API dvdi_client* dvdi_client_new(const char* socket);
DVDI_API void dvdi_client_free(dvdi_client* client); /* no call of it may be running */

/* Both of these: while no call of the client runs.
 * `trace_id` goes into every event of its calls, and into the daemon's calls to drivers: at most 64 of A-Z
 * a-z 0-9 . _ - or the answer is DVDI_INVALID_ARGUMENT. NULL or "" (the default): the daemon makes one each
 * call. */
DVDI_API dvdi_code dvdi_client_set_trace_id(dvdi_client* client, const char* trace_id);
/* `patience_ms` is how long after `timeout_ms` a call still waits for the error of the daemon, which ends its
 * work at `timeout_ms` by itself and can say how far it came. Without patience (0, the default) the daemon is
 * given a tenth, and at most a second, less than `timeout_ms`. `max_answer_bytes`: 0 is the default, 64 MiB.
 */
DVDI_API void dvdi_client_set_limits(dvdi_client* client, int64_t patience_ms, size_t max_answer_bytes);

/* Something that ends calls from outside: any number of them, those that begin later too. NULL: no memory. */
DVDI_API dvdi_cancellation* dvdi_cancellation_new(void);
DVDI_API void dvdi_cancel(dvdi_cancellation* cancellation);
DVDI_API void dvdi_cancellation_free(dvdi_cancellation* cancellation); /* no call of it may be running */

/* Makes one call and waits for its whole answer, `timeout_ms` at most (0 or less: as long as it takes).
 * `method` is GET, POST or DELETE; `path` begins with /v1/ (or is /healthz or /metrics) and may have a query;
 * `body` of `body_size` bytes is the JSON document of a POST (NULL and 0: none). `cancellation` may be NULL.
 * A cancelled or timed out call may go on in the daemon: what it intends is carried out, or taken back. A
 * longer answer than the client's limit is DVDI_RESOURCE_EXHAUSTED. Never NULL: without memory for an answer,
 * a static one says so. To be freed by dvdi_answer_free(). */
DVDI_API dvdi_answer* dvdi_call(dvdi_client* client, const char* method, const char* path, const char* body,
                                size_t body_size, int64_t timeout_ms, dvdi_cancellation* cancellation);
DVDI_API void dvdi_answer_free(dvdi_answer* answer);

DVDI_API dvdi_code dvdi_answer_code(const dvdi_answer* answer);
DVDI_API int dvdi_answer_status(const dvdi_answer* answer); /* of HTTP; 0: there was none */
/* The document; `size` (may be NULL) is its length without the NUL. Of an error: problem+json, or "". */
DVDI_API const char* dvdi_answer_body(const dvdi_answer* answer, size_t* size);

/* Of an error; "" and 0 where it does not say, and for DVDI_OK. */
DVDI_API const char* dvdi_answer_text(const dvdi_answer* answer); /* all of it, for a person */
DVDI_API const char* dvdi_answer_message(const dvdi_answer* answer);
DVDI_API const char* dvdi_answer_driver(const dvdi_answer* answer);
DVDI_API const char* dvdi_answer_volume(const dvdi_answer* answer);
DVDI_API const char* dvdi_answer_operation(const dvdi_answer* answer);
DVDI_API unsigned dvdi_answer_attempt(const dvdi_answer* answer);
DVDI_API const char* dvdi_answer_hint(const dvdi_answer* answer); /* what to do next */
DVDI_API dvdi_outcome dvdi_answer_outcome(const dvdi_answer* answer);

#ifdef __cplusplus
}
#endif

#endif /* DVDI_DVDI_H */
