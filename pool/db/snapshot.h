/*
 * The database as bytes, written and read in slices.
 *
 * An encoder is a view of the database as it was when it was made, at a cost that does
 * not depend on the database's size (a table of shared pages of row pointers is copied, a
 * page when its first row changes afterwards). The database may be changed, swapped or
 * freed between slices.
 *
 * Bytes: 16 bytes "REEVESNAP" + version; then frames of length (4 bytes, little endian),
 * checksum (8, XXH3 seeded with the frame's number), payload (at most 16 KiB). The
 * payloads joined are records, each a length and one msgpack object; the last one carries
 * count and database hash. Any changed, missing or added byte is refused.
 */
#ifndef REEVE_POOL_DB_SNAPSHOT_H
#define REEVE_POOL_DB_SNAPSHOT_H

#include "base/buf.h"
#include "pool/db/db.h"

/* Bytes of one step, about: 400 rows, which take a millisecond or two to decode. */
enum { SNAPSHOT_SLICE_BYTES = 16 << 10 };

struct snapshot_encoder;
struct snapshot_decoder;

/* NULL: out of memory. */
struct snapshot_encoder *snapshot_encoder_new(struct db *db);
void snapshot_encoder_free(struct snapshot_encoder *s); /* at any time; NULL-safe */

/* The view's seq. */
uint64_t snapshot_encoder_seq(const struct snapshot_encoder *s);

/* Appends at most SNAPSHOT_SLICE_BYTES + 28 bytes to `out`. RV_EAGAIN: more to come; 0:
 * that was the last, don't call again; RV_ENOMEM or RV_ETOOBIG (by out's cap): nothing
 * was appended, try again. */
int snapshot_encode(struct snapshot_encoder *s, struct buf *out) RV_MUST_CHECK;

/* `seed` as for db_new, and another one than that of the database it will replace: tokens
 * of event.from count live changes by it. NULL: out of memory. */
struct snapshot_decoder *snapshot_decoder_new(uint64_t seed);
void snapshot_decoder_free(struct snapshot_decoder *d); /* NULL-safe */

/* Takes the next bytes, in pieces of any size (feed no more than a slice at a time to
 * stay in the budget). After an error the decoder is good only for being freed:
 * RV_ECORRUPT, RV_EUNSUPPORTED (made by a newer level or version), RV_ENOMEM. */
int snapshot_decode(struct snapshot_decoder *d, const uint8_t *data, size_t len,
	struct rv_error *e) RV_MUST_CHECK;

/* After the last byte: links references and checks the whole, a slice per call.
 * RV_EAGAIN: call again; 0: *db is the database, returned owned; errors as above,
 * RV_ECORRUPT also when bytes are missing. */
int snapshot_decode_finish(
	struct snapshot_decoder *d, struct db **db, struct rv_error *e) RV_MUST_CHECK;

#endif
