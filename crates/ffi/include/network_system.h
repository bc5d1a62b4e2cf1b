// The C interface of network-system. Made by cbindgen from crates/ffi; do not edit.
//
// Errors: every function that can fail returns 0, or a negative code (ns_error_text); then
// ns_last_error has a sentence about it, for the calling thread, until its next failing call.
// Threads: every function may be called from any thread, also at the same time for one handle,
// but for the `_free` functions: nothing may use the handle during that call or afterwards.
// Callbacks run on threads of the library. They must not throw, and must not start, stop, wait for
// or free a server or client (-1).
// Fork: in a child of fork without exec every call fails with -6.

#ifndef NETWORK_SYSTEM_H
#define NETWORK_SYSTEM_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

// A client, which can be started and stopped, and keeps its connection in between.
typedef struct ns_client ns_client;

// A server, which can be started and stopped.
typedef struct ns_server ns_server;

// One connection.
typedef struct ns_session ns_session;

// What to call for events. Each may be NULL. The session and the bytes are lent for the time of the
// call; see ns_session_retain. For one session the calls come one after the other, for several
// sessions at the same time where there are several workers.
typedef struct {
  // Given to every call. It must stay valid until the handle is freed.
  void *user_data;
  // A connection is open.
  void (*on_connect)(void*, const ns_session*);
  // A message has come.
  void (*on_message)(void*, const ns_session*, const uint8_t*, size_t);
  // A connection has ended, and why ("peer closed", "cut" ...).
  void (*on_disconnect)(void*, const ns_session*, const char*);
} ns_callbacks;

// What a server or client has done since its start.
typedef struct {
  // Connections that are open now.
  uint64_t connections_active;
  // Connections that were accepted or made.
  uint64_t connections_total;
  // Messages received.
  uint64_t messages_in;
  // Messages written.
  uint64_t messages_out;
  // Bytes received, framing included.
  uint64_t bytes_in;
  // Bytes written, framing included.
  uint64_t bytes_out;
  // Messages dropped, or left unwritten by a connection's end.
  uint64_t messages_dropped;
  // Bytes that wait to be written now.
  uint64_t queued_bytes;
} ns_statistics;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of this library, such as "0.1.0".
const char *ns_version(void);

// The sentence about the calling thread's last failed call; empty when none has failed. Valid until
// the thread's next failing call, or its end. Never NULL.
const char *ns_last_error(void);

// The code of the calling thread's last failed call, or 0.
int32_t ns_last_error_code(void);

// An error code in words, such as "connection refused". Never NULL, valid for ever.
const char *ns_error_text(int32_t code);

// Makes a client for a URL, such as "tcp://127.0.0.1:8080". It does not connect yet. Free it with
// ns_client_free.
//
// # Safety
// `url` is a C string; `out` can be written.
int32_t ns_client_new(const char *url, ns_client **out);

// Sets what is called for events, from the next start on. NULL: nothing.
//
// # Safety
// As ns_server_set_callbacks.
int32_t ns_client_set_callbacks(ns_client *client, const ns_callbacks *callbacks);

// Sets the file of the authority (PEM) that the client trusts, instead of the system's.
//
// # Safety
// The client is not freed; `ca` is a C string.
int32_t ns_client_set_ca(ns_client *client, const char *ca);

// Begins to connect, and returns before there is a connection; connects anew when it is lost. -7
// when it is started already, -1 when the URL makes no sense.
//
// # Safety
// The client is not freed.
int32_t ns_client_start(ns_client *client);

// Waits for the connection, for at most so many milliseconds (-4). -603 when it is not started.
//
// # Safety
// The client is not freed.
int32_t ns_client_wait_connected(const ns_client *client, uint64_t timeout_ms);

// Queues a message on the connection that is up; -603 when there is none. For the rest as
// ns_session_send.
//
// # Safety
// The client is not freed; `length` bytes can be read at `data`.
int32_t ns_client_send(const ns_client *client, const uint8_t *data, size_t length);

// Stops: writes what is queued, for at most so many milliseconds, and closes. -603 when it is not
// started.
//
// # Safety
// The client is not freed.
int32_t ns_client_stop(ns_client *client, uint64_t deadline_ms);

// Waits until the client is stopped; returns at once when it is not started.
//
// # Safety
// The client is not freed before the call returns.
int32_t ns_client_wait(const ns_client *client);

// What the started client has done, over all its connections.
//
// # Safety
// The client is not freed; `out` can be written.
int32_t ns_client_statistics(const ns_client *client, ns_statistics *out);

// Stops the client at once if it is started, and frees it. NULL is nothing. Not from a callback (-1).
//
// # Safety
// The client is of ns_client_new, and no call uses it now or later.
int32_t ns_client_free(ns_client *client);

// Makes a server for a URL, such as "tcp://0.0.0.0:8080" or "tls://[::]:8443?framing=lines". It does
// not listen yet. Free it with ns_server_free.
//
// # Safety
// `url` is a C string; `out` can be written.
int32_t ns_server_new(const char *url,
                      ns_server **out);

// Sets what is called for events, from the next start on. NULL: nothing.
//
// # Safety
// The server is not freed; `callbacks` is NULL or can be read, and what it names may be called from
// any thread until the server is freed.
int32_t ns_server_set_callbacks(ns_server *server, const ns_callbacks *callbacks);

// Sets the number of threads, from the next start on. Default: 1.
//
// # Safety
// The server is not freed.
int32_t ns_server_set_workers(ns_server *server, size_t workers);

// Sets the certificate chain and the key (files in PEM form), from the next start on.
//
// # Safety
// The server is not freed; both are C strings.
int32_t ns_server_set_tls(ns_server *server, const char *certificate, const char *key);

// Starts to listen. -661 when it runs already, -662 when the address cannot be had.
//
// # Safety
// The server is not freed.
int32_t ns_server_start(ns_server *server);

// Stops: sessions finish what they have received and queued, for at most so many milliseconds.
// -660 when it does not run.
//
// # Safety
// The server is not freed.
int32_t ns_server_stop(ns_server *server, uint64_t deadline_ms);

// Waits until the server is stopped; returns at once when it does not run.
//
// # Safety
// The server is not freed before the call returns.
int32_t ns_server_wait(const ns_server *server);

// Writes the address that the running server listens on, with its real port, as a C string into
// `capacity` bytes. -1 when it does not fit.
//
// # Safety
// The server is not freed; `capacity` bytes can be written at `buffer`.
int32_t ns_server_address(const ns_server *server, char *buffer, size_t capacity);

// Sends a copy of a message to every session, without waiting for room.
//
// # Safety
// The server is not freed; `length` bytes can be read at `data`.
int32_t ns_server_broadcast(const ns_server *server, const uint8_t *data, size_t length);

// What the running server has done since its start.
//
// # Safety
// The server is not freed; `out` can be written.
int32_t ns_server_statistics(const ns_server *server, ns_statistics *out);

// Stops the server at once if it runs, and frees it. NULL is nothing. Not from a callback (-1).
//
// # Safety
// The server is of ns_server_new, and no call uses it now or later.
int32_t ns_server_free(ns_server *server);

// Queues a message; the bytes are copied. Waits while the session's queue is full, but in a callback
// that is an error (-644), and the message is not sent.
//
// # Safety
// `session` was given by this library and is not freed; `length` bytes can be read at `data`.
int32_t ns_session_send(const ns_session *session,
                        const uint8_t *data,
                        size_t length);

// The number of a session, which no other has had in this process; 0 for NULL.
//
// # Safety
// As ns_session_send.
uint64_t ns_session_id(const ns_session *session);

// Writes what is queued, then closes. Returns at once.
//
// # Safety
// As ns_session_send; `reason` is a C string.
int32_t ns_session_close(const ns_session *session, const char *reason);

// A handle that outlives the callback. Free it with ns_session_free.
//
// # Safety
// As ns_session_send; `out` can be written.
int32_t ns_session_retain(const ns_session *session, ns_session **out);

// Frees a handle of ns_session_retain; the connection stays open. NULL is nothing.
//
// # Safety
// The handle is of ns_session_retain and is not used again.
void ns_session_free(ns_session *session);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* NETWORK_SYSTEM_H */
