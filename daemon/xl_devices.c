/*
 * A disk is "target, format, vdev, access" by position, each of which may also be given
 * as key=value; target= takes all that follows it. Of old it is "prefix:target, vdev,
 * access", where the prefixes say format or backend (libxlu_disk_l.l of Xen 4.17).
 */
#include "daemon/xl_devices.h"

#include <stdio.h>
#include <string.h>

static bool starts(const char *text, const char *with)
{
	return strncmp(text, with, strlen(with)) == 0;
}

static void trim(char *text)
{
	size_t len = strlen(text), from = strspn(text, " \t");

	while (len > from && (text[len - 1] == ' ' || text[len - 1] == '\t'))
		len--;
	memmove(text, text + from, len - from);
	text[len - from] = '\0';
}

/* The next word up to a comma, trimmed; NULL: no more. */
static const char *word(const char **at, char *out, size_t size)
{
	size_t len;

	if (!*at)
		return NULL;
	len = strcspn(*at, ",");
	snprintf(out, size, "%.*s", (int)len, *at);
	trim(out);
	*at = (*at)[len] ? *at + len + 1 : NULL;
	return out;
}

/* --- disks --- */

struct disk_words {
	struct xl_disk *d;
	bool old; /* with a prefix: no format by position */
	int position;
};

/* xvda, sda and hda are the first; partitions are no place that a VBD can have, and a PV
 * guest would see another name for sd and hd. */
static void set_vdev(struct xl_disk *d, const char *text)
{
	char name[64], *colon;

	snprintf(name, sizeof name, "%s", text);
	colon = strchr(name, ':');
	if (colon) {
		*colon = '\0';
		d->cdrom = strcmp(colon + 1, "cdrom") == 0;
	}
	snprintf(d->vdev, sizeof d->vdev, "%.15s", name);
	d->place = -1;
	if (starts(name, "xvd") && name[3] >= 'a' && name[3] < 'a' + HYPER_MAX_VBDS &&
		!name[4])
		d->place = name[3] - 'a';
}

static int set_access(struct xl_disk *d, const char *text)
{
	if (strcmp(text, "r") == 0 || strcmp(text, "ro") == 0)
		d->read_only = true;
	else if (*text && strcmp(text, "w") != 0 && strcmp(text, "rw") != 0)
		return RV_EINVAL;
	return 0;
}

/* Prefixes say format or backend, and can follow one another: tap:aio:. */
static const char *strip_prefixes(struct disk_words *w, const char *text)
{
	static const struct {
		const char *prefix, *format;
	} known[] = {
		{"phy:", "raw"},
		{"file:", "raw"},
		{"raw:", "raw"},
		{"aio:", "raw"},
		{"ioemu:", NULL},
		{"tap:", NULL},
		{"tap2:", NULL},
		{"tapdisk:", NULL},
		{"qcow:", "qcow"},
		{"qcow2:", "qcow2"},
		{"vhd:", "vhd"},
		{"vhdx:", "vhdx"},
	};
	bool more = true;

	while (more) {
		more = false;
		for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
			if (!starts(text, known[i].prefix))
				continue;
			text += strlen(known[i].prefix);
			if (known[i].format)
				snprintf(w->d->format, sizeof w->d->format, "%s",
					known[i].format);
			w->old = more = true;
		}
	}
	return text;
}

static int by_position(struct disk_words *w, const char *text)
{
	int position = w->position++;

	if (w->old && position > 0)
		position++;
	switch (position) {
	case 0:
		text = strip_prefixes(w, text);
		if (strlen(text) >= sizeof w->d->target)
			return RV_ETOOBIG;
		snprintf(w->d->target, sizeof w->d->target, "%.511s", text);
		return 0;
	case 1:
		if (*text)
			snprintf(w->d->format, sizeof w->d->format, "%.15s", text);
		return 0;
	case 2:
		set_vdev(w->d, text);
		return 0;
	case 3:
		return set_access(w->d, text);
	default:
		return RV_EINVAL;
	}
}

/* False: it is no key=value. */
static bool by_key(struct disk_words *w, const char *text, int *rc)
{
	static const char *const flags[] = {"cdrom", "direct-io-safe", "discard",
		"no-discard", "colo", "no-colo", "trusted", "untrusted"};

	*rc = 0;
	if (starts(text, "format="))
		snprintf(w->d->format, sizeof w->d->format, "%.15s", text + 7);
	else if (starts(text, "vdev="))
		set_vdev(w->d, text + 5);
	else if (starts(text, "access="))
		*rc = set_access(w->d, text + 7);
	else if (starts(text, "devtype="))
		w->d->cdrom = strcmp(text + 8, "cdrom") == 0;
	else if (starts(text, "script=") || starts(text, "backend="))
		w->d->special = true;
	else if (starts(text, "backendtype=") || starts(text, "specification="))
		return true;
	else
		for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++)
			if (strcmp(text, flags[i]) == 0) {
				w->d->cdrom |= i == 0;
				return true;
			}
	return *rc || starts(text, "format=") || starts(text, "vdev=") ||
	       starts(text, "access=") || starts(text, "devtype=") ||
	       starts(text, "script=") || starts(text, "backend=");
}

static int disk_words(struct disk_words *w, const char *text)
{
	char part[XL_CONFIG_PATH_SIZE + 64];
	const char *at = text;
	int rc = 0;

	while (at && !rc) {
		const char *rest = at + strspn(at, " \t");

		if (starts(rest, "target=")) {
			if (strlen(rest + 7) >= sizeof w->d->target)
				return RV_ETOOBIG;
			snprintf(w->d->target, sizeof w->d->target, "%s", rest + 7);
			trim(w->d->target);
			return 0;
		}
		if (strcspn(at, ",") >= sizeof part)
			return RV_ETOOBIG;
		word(&at, part, sizeof part);
		if (!by_key(w, part, &rc))
			rc = by_position(w, part);
	}
	return rc;
}

static void leave_disk(struct xl_config *c, const struct xl_disk *d, const char *why)
{
	c->devices_left = true;
	xl_config_note(c, "disk %.60s (%s): not taken: %s", d->target, d->vdev, why);
}

int xl_disk_parse(struct xl_config *c, const char *text, int line, struct rv_error *e)
{
	struct xl_disk disk = {.format = "raw", .place = -1};
	struct disk_words w = {.d = &disk};

	if (disk_words(&w, text))
		return rv_error_set(e, RV_EINVAL,
			"line %d: disk '%.80s' does not read target, format, vdev, "
			"access",
			line, text);
	if (!disk.vdev[0])
		return rv_error_set(
			e, RV_EINVAL, "line %d: disk '%.80s' has no vdev", line, text);
	if (disk.special)
		leave_disk(c, &disk, "a script or another domain serves it");
	else if (disk.place < 0)
		leave_disk(c, &disk, "a VM's disks are xvda to xvdp");
	else if (strcmp(disk.format, "raw") != 0 && strcmp(disk.format, "qcow2") != 0)
		leave_disk(c, &disk, "its format is neither raw nor qcow2");
	else if (c->disk_count == HYPER_MAX_VBDS)
		leave_disk(c, &disk, "a VM has at most 16 disks");
	else {
		for (size_t i = 0; i < c->disk_count; i++)
			if (c->disks[i].place == disk.place)
				return rv_error_set(e, RV_EINVAL,
					"line %d: two disks are %s", line, disk.vdev);
		c->disks[c->disk_count++] = disk;
	}
	return 0;
}

/* --- interfaces --- */

static bool is_mac(const char *text)
{
	for (int i = 0; i < 17; i++) {
		bool hexadecimal = (text[i] >= '0' && text[i] <= '9') ||
				   (text[i] >= 'a' && text[i] <= 'f') ||
				   (text[i] >= 'A' && text[i] <= 'F');

		if (i % 3 == 2 ? text[i] != ':' : !hexadecimal)
			return false;
	}
	return text[17] == '\0';
}

int xl_vif_parse(struct xl_config *c, const char *text, int line, struct rv_error *e)
{
	struct xl_vif vif = {.special = false};
	const char *at = text;
	char part[200];

	while (at) {
		if (strcspn(at, ",") >= sizeof part)
			return rv_error_set(
				e, RV_ETOOBIG, "line %d: vif is too long", line);
		word(&at, part, sizeof part);
		if (starts(part, "mac=")) {
			if (!is_mac(part + 4))
				return rv_error_set(e, RV_EINVAL,
					"line %d: vif: '%.40s' is no MAC address", line,
					part + 4);
			snprintf(vif.mac, sizeof vif.mac, "%.17s", part + 4);
		} else if (starts(part, "bridge=")) {
			if (strlen(part + 7) >= sizeof vif.bridge)
				return rv_error_set(e, RV_EINVAL,
					"line %d: vif: '%.40s' is no bridge's name", line,
					part + 7);
			snprintf(vif.bridge, sizeof vif.bridge, "%.15s", part + 7);
		} else if (starts(part, "script=") && !strstr(part, "vif-bridge")) {
			vif.special = true;
		} else if (starts(part, "backend=")) {
			vif.special = true;
		} else if (*part && !starts(part, "script=") && !starts(part, "type=") &&
			   !starts(part, "vifname=") && !starts(part, "model=")) {
			xl_config_note(c, "vif: %.60s: not taken (line %d)", part, line);
		}
	}
	if (c->vif_count == HYPER_MAX_VIFS || vif.special) {
		c->devices_left = true;
		xl_config_note(c, "vif %.60s: not taken: %s", text,
			vif.special ? "a script or another domain serves it"
				    : "a VM has at most 8 interfaces");
		return 0;
	}
	c->vifs[c->vif_count++] = vif;
	return 0;
}
