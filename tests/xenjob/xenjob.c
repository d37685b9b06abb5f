/*
 * xenjob: one job of the Xen helper from the command line, for tests on real Xen.
 *
 *	xenjob VERB key=value...
 *
 *	VERB		create, restore, save, migrate, resume, destroy, attach, detach
 *			or console
 *	handle=N	the domain's (of migrate: the source's; to=N is the new one's)
 *	vm=N name= type=pv|pvh max=KIB target=KIB vcpus=N kernel= ramdisk= cmdline=
 *	pod=1 platform= disk=DEVID,DEVICE,BACKEND,PATH vif=DEVID,MAC,BRIDGE devid=N
 *	file=PATH live=1 rounds=N kib=ACTUAL helper=PATH
 *	cpu-without=BIT	the host's CPU level without that bit of leaf 1's ecx
 *	cancel-ms=N	cancel after so long; kill-ms=N: kill -9 the helper
 *
 * Prints what came out and how long it took; exit status 0: it was done.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "xen/real/cpu_policy.h"
#include "xen/real/hypercall.h"
#include "xen/real/job.h"
#include "xen/real/process.h"

enum { RING = 4 << 20, FILE_ROOM = 256 * 1024 };

struct tool {
	struct loop *loop;
	struct xen_job_spec job, other; /* other: migrate's restore */
	struct hyper_domain_spec spec;
	struct hyper_vbd_spec vbds[HYPER_MAX_VBDS];
	struct hyper_vif_spec vifs[HYPER_MAX_VIFS];
	struct xen_job *jobs[2];
	struct xen_helpers helpers;
	const char *program;
	int running, failed;
	int64_t begin_us, cancel_ms, kill_ms;
	struct timer cancel, kill;
	uint32_t rounds;
	const char *file;
	int fd;
	uint8_t *policy;
	uint8_t *ring; /* what is on its way, ring[at..len) */
	size_t at, len;
	bool saved;
};

static struct uuid uuid_of(const char *number)
{
	char text[UUID_TEXT_SIZE];
	struct uuid u = {{0}};

	snprintf(text, sizeof text, "00000000-0000-4000-8000-%012lu",
		strtoul(number, NULL, 10));
	if (uuid_parse(&u, text, UUID_TEXT_LEN) != 0)
		abort();
	return u;
}

/* --- streams --- */

static size_t room(void *arg, uint8_t **out)
{
	struct tool *t = arg;

	if (t->at == t->len)
		t->at = t->len = 0;
	*out = t->ring + t->len;
	return RING - t->len;
}

static void filled(void *arg, size_t n)
{
	struct tool *t = arg;

	t->len += n;
	if (t->fd >= 0) {
		while (t->at < t->len) {
			ssize_t r = write(t->fd, t->ring + t->at, t->len - t->at);

			if (r <= 0) {
				perror(t->file);
				exit(1);
			}
			t->at += (size_t)r;
		}
	} else if (t->jobs[1]) {
		xen_job_kick(t->jobs[1]);
	}
}

static size_t peek(void *arg, const uint8_t **data, bool *end)
{
	struct tool *t = arg;

	if (t->at == t->len && t->fd >= 0) {
		ssize_t r = read(t->fd, t->ring, FILE_ROOM);

		t->at = 0;
		t->len = r > 0 ? (size_t)r : 0;
		t->saved = r <= 0;
	}
	*data = t->ring + t->at;
	*end = t->saved;
	return t->len - t->at;
}

static void consumed(void *arg, size_t n)
{
	struct tool *t = arg;

	t->at += n;
	if (t->jobs[0] && t->fd < 0)
		xen_job_kick(t->jobs[0]);
}

static enum hyper_precopy_verdict policy(void *arg, const struct hyper_precopy *round)
{
	struct tool *t = arg;

	printf("round %u pages=%" PRIu64 " dirty=%" PRIu64 " %" PRIu64
	       " B/s dirty/s=%" PRIu64 "\n",
		round->iteration, round->round_pages, round->dirty_pages,
		round->bytes_per_s, round->dirty_per_s);
	return round->iteration >= t->rounds || round->dirty_pages < 64
		       ? HYPER_PRECOPY_STOP
		       : HYPER_PRECOPY_CONTINUE;
}

static void suspended(void *arg)
{
	struct tool *t = arg;

	printf("suspended after %" PRId64 " ms\n",
		(loop_now_us(t->loop) - t->begin_us) / 1000);
}

/* --- ends --- */

static void told(struct tool *t, const char *what, const struct xen_job_result *r)
{
	printf("%s rc=%s domid=%u left=%d suspended=%d bytes=%" PRIu64 " %s ms=%" PRId64
	       "%s%s\n",
		what, r->rc ? rv_error_symbol(r->rc) : "0", r->domid, r->left,
		r->suspended, r->stream_bytes, r->console,
		(loop_now_us(t->loop) - t->begin_us) / 1000, r->rc ? ": " : "",
		r->rc ? r->error->detail : "");
	t->failed |= r->rc != 0;
	if (--t->running == 0)
		loop_stop(t->loop);
}

static void first_done(void *arg, const struct xen_job_result *r)
{
	struct tool *t = arg;

	t->jobs[0] = NULL;
	t->saved = true;
	told(t, hyper_call_name(t->job.call), r);
	if (t->jobs[1]) {
		if (r->rc)
			xen_job_cancel(t->jobs[1]);
		else
			xen_job_kick(t->jobs[1]);
	}
}

static void second_done(void *arg, const struct xen_job_result *r)
{
	struct tool *t = arg;

	t->jobs[1] = NULL;
	told(t, "restore", r);
	if (t->jobs[0] && r->rc)
		xen_job_cancel(t->jobs[0]);
}

static void cancel_due(void *arg)
{
	struct tool *t = arg;

	printf("cancelling\n");
	for (int i = 0; i < 2; i++)
		if (t->jobs[i])
			xen_job_cancel(t->jobs[i]);
}

/* The helper is our only child, or the first of two. */
static void kill_due(void *arg)
{
	char path[64], text[64] = "";
	int fd;

	(void)arg;
	snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
	fd = open(path, O_RDONLY);
	if (fd < 0 || read(fd, text, sizeof text - 1) <= 0)
		return;
	close(fd);
	printf("kill -9 %ld\n", strtol(text, NULL, 10));
	kill((pid_t)strtol(text, NULL, 10), SIGKILL);
}

/* --- words --- */

static void disk_word(struct tool *t, char *value)
{
	struct hyper_vbd_spec *d = &t->vbds[t->spec.vbd_count++];
	char *save = NULL;

	d->devid = (uint32_t)strtoul(strtok_r(value, ",", &save), NULL, 10);
	d->device = strtok_r(NULL, ",", &save);
	d->backend = strtok_r(NULL, ",", &save);
	d->params = strtok_r(NULL, "", &save);
}

static void vif_word(struct tool *t, char *value)
{
	struct hyper_vif_spec *v = &t->vifs[t->spec.vif_count++];
	char *save = NULL;

	v->devid = (uint32_t)strtoul(strtok_r(value, ",", &save), NULL, 10);
	v->mac = strtok_r(NULL, ",", &save);
	v->bridge = strtok_r(NULL, ",", &save);
	v->backend = "bridge";
}

static bool text_word(struct tool *t, const char *key, const char *value)
{
	const struct {
		const char *key, **to;
	} words[] = {
		{"name", &t->spec.name},
		{"kernel", &t->spec.kernel},
		{"ramdisk", &t->spec.ramdisk},
		{"cmdline", &t->spec.cmdline},
		{"platform", &t->spec.platform},
		{"helper", &t->program},
		{"file", &t->file},
	};

	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (strcmp(words[i].key, key) == 0) {
			*words[i].to = value;
			return true;
		}
	return false;
}

static void level_without(struct tool *t, unsigned int bit)
{
	struct xen_cpu_policy *p = calloc(1, sizeof *p);
	const struct xen_hypercalls *calls;
	struct rv_error e = {0};
	void *xen;

	t->policy = malloc(HYPER_MAX_CPU_POLICY);
	if (!p || !t->policy || xen_hypercalls_open(&calls, &xen, &e) != 0 ||
		calls->cpu_policy(xen, p, &e) != 0) {
		fprintf(stderr, "no CPU level: %s\n", e.detail);
		exit(1);
	}
	for (size_t i = 0; i < p->hvm.leaf_count; i++)
		if (p->hvm.leaves[i].leaf == 1)
			p->hvm.leaves[i].r[2] &= ~(1u << bit);
	for (size_t i = 0; i < p->pv.leaf_count; i++)
		if (p->pv.leaves[i].leaf == 1)
			p->pv.leaves[i].r[2] &= ~(1u << bit);
	t->spec.cpu_policy_len = xen_cpu_policy_write(p, t->policy);
	t->spec.cpu_policy = t->policy;
	calls->close(xen);
	free(p);
}

static bool number_word(struct tool *t, const char *key, const char *value)
{
	uint64_t n = strtoull(value, NULL, 10);

	if (strcmp(key, "max") == 0)
		t->spec.static_max_kib = n;
	else if (strcmp(key, "target") == 0)
		t->spec.target_kib = n;
	else if (strcmp(key, "vcpus") == 0)
		t->spec.vcpus_max = (uint32_t)n;
	else if (strcmp(key, "pod") == 0)
		t->spec.populate_on_demand = n;
	else if (strcmp(key, "devid") == 0)
		t->job.devid = (uint32_t)n;
	else if (strcmp(key, "live") == 0)
		t->job.save.live = n;
	else if (strcmp(key, "rounds") == 0)
		t->rounds = (uint32_t)n;
	else if (strcmp(key, "kib") == 0)
		t->job.actual_kib = n;
	else if (strcmp(key, "cpu-without") == 0)
		level_without(t, (unsigned int)n & 31);
	else if (strcmp(key, "cancel-ms") == 0)
		t->cancel_ms = (int64_t)n;
	else if (strcmp(key, "kill-ms") == 0)
		t->kill_ms = (int64_t)n;
	else
		return false;
	return true;
}

static bool take_word(struct tool *t, char *word)
{
	char *value = strchr(word, '=');

	if (!value)
		return false;
	*value++ = '\0';
	if (strcmp(word, "handle") == 0)
		t->spec.handle = t->job.handle = uuid_of(value);
	else if (strcmp(word, "to") == 0)
		t->other.handle = uuid_of(value);
	else if (strcmp(word, "vm") == 0)
		t->spec.vm = t->job.vm = uuid_of(value);
	else if (strcmp(word, "type") == 0)
		t->spec.type = t->job.type =
			strcmp(value, "pv") == 0 ? HYPER_PV : HYPER_PVH;
	else if (strcmp(word, "disk") == 0)
		disk_word(t, value);
	else if (strcmp(word, "vif") == 0)
		vif_word(t, value);
	else
		return text_word(t, word, value) || number_word(t, word, value);
	return true;
}

static enum hyper_call call_of(const struct tool *t, const char *name)
{
	bool disk = t->spec.vbd_count > 0 || t->job.devid > 255;

	if (strcmp(name, "attach") == 0)
		return disk ? HYPER_CALL_ATTACH_VBD : HYPER_CALL_ATTACH_VIF;
	if (strcmp(name, "detach") == 0)
		return disk ? HYPER_CALL_DETACH_VBD : HYPER_CALL_DETACH_VIF;
	if (strcmp(name, "migrate") == 0)
		return HYPER_CALL_SAVE;
	for (int c = HYPER_CALL_NONE; c < HYPER_CALL_COUNT; c++)
		if (strcmp(name, hyper_call_name((enum hyper_call)c)) == 0)
			return (enum hyper_call)c;
	return HYPER_CALL_NONE;
}

/* --- running --- */

static void start(struct tool *t, const struct xen_job_spec *spec, int i)
{
	struct rv_error e = {0};

	if (xen_job_start(&t->jobs[i], t->loop, spec, i ? second_done : first_done, t,
		    &e) != 0) {
		fprintf(stderr, "refused: %s\n", e.detail);
		exit(1);
	}
	t->running++;
}

static void prepare(struct tool *t, const char *name)
{
	t->job.call = call_of(t, name);
	t->job.domid = HYPER_DOMID_ANY;
	t->spec.vbds = t->vbds;
	t->spec.vifs = t->vifs;
	t->job.spec = &t->spec;
	t->job.vbd = &t->vbds[0];
	t->job.vif = &t->vifs[0];
	t->job.save.sink = (struct hyper_sink){.room = room, .filled = filled, .arg = t};
	t->job.save.policy = policy;
	t->job.save.suspended = suspended;
	t->job.save.arg = t;
	t->job.source =
		(struct hyper_source){.peek = peek, .consumed = consumed, .arg = t};
	if (t->file)
		t->fd = open(t->file,
			t->job.call == HYPER_CALL_SAVE ? O_WRONLY | O_CREAT | O_TRUNC
						       : O_RDONLY,
			0600);
	if (t->file && t->fd < 0) {
		perror(t->file);
		exit(1);
	}
}

static void start_all(struct tool *t, const char *name)
{
	struct hyper_domain_spec spec = t->spec;

	t->begin_us = loop_now_us(t->loop);
	start(t, &t->job, 0);
	if (strcmp(name, "migrate") == 0) {
		spec.handle = t->other.handle;
		t->other = t->job;
		t->other.call = HYPER_CALL_RESTORE;
		t->other.spec = &spec;
		start(t, &t->other, 1);
	}
	if (t->cancel_ms)
		timer_start_ms(&t->cancel, t->cancel_ms);
	if (t->kill_ms)
		timer_start_ms(&t->kill, t->kill_ms);
}

int main(int argc, char **argv)
{
	struct tool t = {.fd = -1, .rounds = 5};
	struct rv_error e = {0};

	setlinebuf(stdout);
	t.program = "reeve-xen-helper";
	t.spec.vcpus_max = 1;
	t.spec.name = "guest";
	t.spec.console = true;
	t.ring = malloc(RING);
	for (int i = 2; i < argc; i++)
		if (!take_word(&t, argv[i])) {
			fprintf(stderr, "xenjob: what is %s?\n", argv[i]);
			return 2;
		}
	if (argc < 2 || !t.ring || loop_new(&t.loop, &e) != 0)
		return 2;
	timer_init(&t.cancel, t.loop, "xenjob.cancel", cancel_due, &t);
	timer_init(&t.kill, t.loop, "xenjob.kill", kill_due, &t);
	xen_helpers_init(&t.helpers, t.loop, t.program);
	t.job.helpers = &t.helpers;
	prepare(&t, argv[1]);
	start_all(&t, argv[1]);
	loop_run(t.loop);
	timer_stop(&t.cancel);
	timer_stop(&t.kill);
	xen_helpers_fini(&t.helpers);
	loop_free(t.loop);
	free(t.ring);
	free(t.policy);
	return t.failed;
}
