/* The harness's server as a program: prints its addresses, ends when stdin does. */
#include <stdio.h>

#include "tests/conformance/rpc/harness.h"

int main(int argc, char **argv)
{
	struct harness h;
	FILE *ca;

	if (argc != 2) {
		fprintf(stderr, "usage: rpc_echo_server CA-FILE\n");
		return 2;
	}
	harness_start(&h, 0, 0);
	ca = fopen(argv[1], "w");
	if (!ca || fputs(h.ca_pem, ca) < 0 || fclose(ca) != 0) {
		perror(argv[1]);
		return 1;
	}
	printf("%s %s %s %s\n", h.ipc, h.tcp, h.tls, h.pub_ipc);
	fflush(stdout);
	while (getchar() != EOF)
		;
	harness_stop(&h);
	return 0;
}
