/*
 * Waits until a domain holds at most (or, with a leading '+', at least) so much memory;
 * prints the time of day in µs. Looks every 10 ms: oftener, it would take half of an
 * emulated processor from what it measures.
 *
 * usage: xen_wait DOMID [+]KIB
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <xenctrl.h>

enum { PATIENCE_MS = 120 * 1000, STEP_MS = 10, PAGE_KIB = 4 };

int main(int argc, char **argv)
{
	xc_interface *xc = xc_interface_open(NULL, NULL, 0);
	struct timespec now;
	xc_domaininfo_t info;
	unsigned long kib;
	uint32_t domid;

	if (argc != 3 || !xc)
		return 2;
	domid = (uint32_t)strtoul(argv[1], NULL, 10);
	kib = strtoul(argv[2] + (argv[2][0] == '+'), NULL, 10);
	for (int waited = 0; waited < PATIENCE_MS; waited += STEP_MS) {
		if (xc_domain_getinfolist(xc, domid, 1, &info) != 1 ||
			info.domain != domid)
			return 1;
		clock_gettime(CLOCK_REALTIME, &now);
		if (argv[2][0] == '+' ? info.tot_pages * PAGE_KIB >= kib
				      : info.tot_pages * PAGE_KIB <= kib) {
			printf("%lld\n", now.tv_sec * 1000000LL + now.tv_nsec / 1000);
			return 0;
		}
		usleep(STEP_MS * 1000);
	}
	return 1;
}
