#include "xen/sim_machine.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

/* One of the two places of a record. */
struct place {
	uint64_t seq; /* 0: never written */
	uint64_t sum; /* of seq and the payload */
};

struct record_pair {
	struct {
		struct place place;
		struct sim_record r;
	} at[2];
};

struct head_pair {
	struct {
		struct place place;
		struct sim_head head;
	} at[2];
};

enum { LAYOUT_VERSION = 1 };
static const char layout_magic[16] = "reeve-sim-host\n";

/* The file, and the memory of a machine without one. The identification is written once,
 * before the first head. */
struct layout {
	char magic[16];
	uint32_t version, record_size, slots, reserved;
	struct head_pair head;
	struct record_pair records[HYPER_MAX_DOMAINS];
};

struct hyper_sim_machine {
	struct layout *layout;
	int fd; /* -1: in memory */
	bool taken;
	struct sim_head head;
};

static uint64_t place_sum(uint64_t seq, const void *payload, size_t len)
{
	return XXH3_64bits_withSeed(payload, len, seq);
}

static bool place_valid(const struct place *p, const void *payload, size_t len)
{
	return p->seq != 0 && p->sum == place_sum(p->seq, payload, len);
}

/* Writes the payload first and the sum last: until the sum fits, the place is invalid and
 * the other one counts. The process may die between any two stores. */
static void place_write(
	struct place *p, void *payload, const void *from, size_t len, uint64_t seq)
{
	p->seq = 0;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	memcpy(payload, from, len);
	p->sum = place_sum(seq, from, len);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	p->seq = seq;
}

static int newer_record(const struct record_pair *pair)
{
	int best = -1;

	for (int i = 0; i < 2; i++) {
		if (!place_valid(
			    &pair->at[i].place, &pair->at[i].r, sizeof pair->at[i].r))
			continue;
		if (best < 0 || pair->at[i].place.seq > pair->at[best].place.seq)
			best = i;
	}
	return best;
}

static int newer_head(const struct head_pair *pair)
{
	int best = -1;

	for (int i = 0; i < 2; i++) {
		if (!place_valid(&pair->at[i].place, &pair->at[i].head,
			    sizeof pair->at[i].head))
			continue;
		if (best < 0 || pair->at[i].place.seq > pair->at[best].place.seq)
			best = i;
	}
	return best;
}

struct sim_head *sim_machine_head(struct hyper_sim_machine *m)
{
	return &m->head;
}

void sim_machine_store_head(struct hyper_sim_machine *m)
{
	struct head_pair *pair = &m->layout->head;
	int newer = newer_head(pair);
	int to = newer == 0 ? 1 : 0;
	uint64_t seq = newer < 0 ? 1 : pair->at[newer].place.seq + 1;

	place_write(
		&pair->at[to].place, &pair->at[to].head, &m->head, sizeof m->head, seq);
}

bool sim_machine_load(
	const struct hyper_sim_machine *m, uint32_t slot, struct sim_record *r)
{
	const struct record_pair *pair = &m->layout->records[slot];
	int newer = newer_record(pair);

	if (newer < 0 || !pair->at[newer].r.in_use)
		return false;
	*r = pair->at[newer].r;
	return true;
}

void sim_machine_store(
	struct hyper_sim_machine *m, uint32_t slot, const struct sim_record *r)
{
	struct record_pair *pair = &m->layout->records[slot];
	uint64_t a = pair->at[0].place.seq, b = pair->at[1].place.seq;
	/* A place that was being written when the process died has seq 0: it is the one
	 * to write. */
	int to = a <= b ? 0 : 1;
	uint64_t seq = (a > b ? a : b) + 1;

	place_write(&pair->at[to].place, &pair->at[to].r, r, sizeof *r, seq);
}

static void machine_power_on(struct hyper_sim_machine *m, struct prng *prng)
{
	struct sim_record empty;

	memset(&empty, 0, sizeof empty);
	for (uint32_t slot = 0; slot < HYPER_MAX_DOMAINS; slot++) {
		struct sim_record r;

		if (sim_machine_load(m, slot, &r))
			sim_machine_store(m, slot, &empty);
	}
	m->head.boot_id = uuid_random(prng);
	m->head.next_domid = 1;
	memcpy(m->head.prng, prng->s, sizeof m->head.prng);
	sim_machine_store_head(m);
}

static void layout_identify(struct layout *layout)
{
	memcpy(layout->magic, layout_magic, sizeof layout->magic);
	layout->version = LAYOUT_VERSION;
	layout->record_size = sizeof(struct sim_record);
	layout->slots = HYPER_MAX_DOMAINS;
}

int hyper_sim_machine_new(
	struct hyper_sim_machine **out, const struct hyper_sim_config *config)
{
	struct hyper_sim_machine *m = calloc(1, sizeof *m);
	struct prng prng;

	*out = NULL;
	if (m == NULL)
		return RV_ENOMEM;
	m->fd = -1;
	m->layout = calloc(1, sizeof *m->layout);
	if (m->layout == NULL) {
		free(m);
		return RV_ENOMEM;
	}
	layout_identify(m->layout);
	prng_seed(&prng, config->seed);
	machine_power_on(m, &prng);
	*out = m;
	return 0;
}

void hyper_sim_machine_free(struct hyper_sim_machine *m)
{
	if (m == NULL)
		return;
	assert(!m->taken);
	if (m->fd < 0) {
		free(m->layout);
	} else {
		munmap(m->layout, sizeof *m->layout);
		close(m->fd); /* and with it the lock */
	}
	free(m);
}

void hyper_sim_machine_reboot(struct hyper_sim_machine *m)
{
	struct prng prng;

	assert(!m->taken);
	memcpy(prng.s, m->head.prng, sizeof prng.s);
	machine_power_on(m, &prng);
}

int sim_machine_take(struct hyper_sim_machine *m)
{
	if (m->taken)
		return RV_EBUSY;
	m->taken = true;
	return 0;
}

void sim_machine_give_back(struct hyper_sim_machine *m)
{
	m->taken = false;
}

int sim_kernel_boot_id(struct uuid *out, struct rv_error *e)
{
	static const char path[] = "/proc/sys/kernel/random/boot_id";
	char text[UUID_TEXT_LEN];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t r;

	if (fd < 0)
		return rv_error_set(e, rv_error_from_errno(errno),
			"cannot open %s: %s; mount /proc", path, strerror(errno));
	r = read(fd, text, sizeof text);
	close(fd);
	if (r != (ssize_t)sizeof text || uuid_parse(out, text, sizeof text) != 0)
		return rv_error_set(e, RV_EINTERNAL, "%s does not hold a UUID", path);
	return 0;
}

/* Gives a new or shorter file its size; refuses one that is something else. */
static int file_check_size(int fd, const char *path, bool *fresh, struct rv_error *e)
{
	struct stat st;
	int r;

	if (fstat(fd, &st) != 0)
		return rv_error_set(e, rv_error_from_errno(errno), "cannot stat %s: %s",
			path, strerror(errno));
	*fresh = st.st_size == 0;
	if (!*fresh && (size_t)st.st_size != sizeof(struct layout))
		return rv_error_set(e, RV_ECORRUPT,
			"%s is not a state file of this version's simulated host (%lld "
			"bytes, should be %zu); remove it, its simulated domains are "
			"lost",
			path, (long long)st.st_size, sizeof(struct layout));
	if (!*fresh)
		return 0;
	/* Real blocks, not a hole: a full disk must be met here, not in a store. */
	r = posix_fallocate(fd, 0, sizeof(struct layout));
	if (r != 0) {
		if (ftruncate(fd, 0) != 0)
			unlink(path);
		return rv_error_set(e, rv_error_from_errno(r),
			"cannot make room for the simulated host in %s: %s", path,
			strerror(r));
	}
	return 0;
}

static int layout_check(const struct layout *layout, const char *path, struct rv_error *e)
{
	if (memcmp(layout->magic, layout_magic, sizeof layout->magic) != 0)
		return rv_error_set(e, RV_ECORRUPT,
			"%s is not a state file of a simulated host; move it away", path);
	if (layout->version != LAYOUT_VERSION ||
		layout->record_size != sizeof(struct sim_record) ||
		layout->slots != HYPER_MAX_DOMAINS)
		return rv_error_set(e, RV_ECORRUPT,
			"%s was written by another version of the simulated host (layout "
			"%u, records of %u bytes); remove it, its simulated domains are "
			"lost",
			path, layout->version, layout->record_size);
	return 0;
}

/* A file whose making was cut short has no head yet: it is as good as new. */
static bool layout_unborn(const struct layout *layout)
{
	static const char none[sizeof layout->magic];

	if (newer_head(&layout->head) >= 0)
		return false;
	return memcmp(layout->magic, none, sizeof none) == 0 ||
	       (layout->head.at[0].place.sum == 0 && layout->head.at[1].place.sum == 0);
}

static int machine_load(struct hyper_sim_machine *m, const char *path, bool fresh,
	uint64_t seed, const struct uuid *kernel_boot_id, struct rv_error *e)
{
	struct prng prng;
	int newer, rc;

	prng_seed(&prng, seed);
	if (fresh || layout_unborn(m->layout)) {
		layout_identify(m->layout);
		m->head.kernel_boot_id = *kernel_boot_id;
		machine_power_on(m, &prng);
		return 0;
	}
	rc = layout_check(m->layout, path, e);
	if (rc != 0)
		return rc;
	newer = newer_head(&m->layout->head);
	if (newer < 0)
		return rv_error_set(e, RV_ECORRUPT,
			"%s is damaged: neither copy of its head is valid; remove it, "
			"its "
			"simulated domains are lost",
			path);
	m->head = m->layout->head.at[newer].head;
	if (!uuid_eq(&m->head.kernel_boot_id, kernel_boot_id)) {
		m->head.kernel_boot_id = *kernel_boot_id;
		memcpy(prng.s, m->head.prng, sizeof prng.s);
		machine_power_on(m, &prng);
	}
	return 0;
}

int sim_machine_open(struct hyper_sim_machine **out, const char *path, uint64_t seed,
	const struct uuid *kernel_boot_id, struct rv_error *e)
{
	struct hyper_sim_machine *m = calloc(1, sizeof *m);
	void *map = MAP_FAILED;
	bool fresh = false;
	int rc;

	*out = NULL;
	if (m == NULL)
		return rv_error_set(e, RV_ENOMEM, "no memory for the simulated host");
	m->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (m->fd < 0) {
		rc = rv_error_set(e, rv_error_from_errno(errno),
			"cannot open the simulated host's state file %s: %s", path,
			strerror(errno));
		goto out;
	}
	if (flock(m->fd, LOCK_EX | LOCK_NB) != 0) {
		rc = rv_error_set(e, RV_EBUSY,
			"the simulated host's state file %s is in use by another "
			"process; "
			"stop that one or use another state directory",
			path);
		goto out;
	}
	rc = file_check_size(m->fd, path, &fresh, e);
	if (rc != 0)
		goto out;
	map = mmap(NULL, sizeof(struct layout), PROT_READ | PROT_WRITE, MAP_SHARED, m->fd,
		0);
	if (map == MAP_FAILED) {
		rc = rv_error_set(e, rv_error_from_errno(errno), "cannot map %s: %s",
			path, strerror(errno));
		goto out;
	}
	m->layout = map;
	rc = machine_load(m, path, fresh, seed, kernel_boot_id, e);
	if (rc != 0)
		goto out;
	*out = m;
	return 0;
out:
	if (map != MAP_FAILED)
		munmap(map, sizeof(struct layout));
	if (m->fd >= 0)
		close(m->fd);
	free(m);
	return rc;
}
