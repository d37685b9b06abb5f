#include "tests/unit/net/harness.h"

static void test_names(void **state)
{
	static const char *const good[] = {
		"eth0", "br-lan", "a", "enp0s31f6", "eth0.100", "_x", "fifteen_chars15"};
	static const char *const bad[] = {"", "sixteen_chars_16", "two words", "; rm -rf",
		"$(id)", "-x", ".", "..", "a/b", "a:b", "a'b", "a\nb", "\xc3\xa4", "all",
		"default", "`x`", "a=b", "a,b"};
	struct rv_error e;
	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
		assert_int_equal(net_name_check(good[i], "bridge", &e), 0);
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		if (net_name_check(bad[i], "bridge", &e) == 0)
			print_error("'%s' was taken\n", bad[i]);
		assert_int_equal(net_name_check(bad[i], "bridge", &e), RV_EINVAL);
		assert_non_null(strstr(e.detail, "bridge"));
	}
	assert_int_equal(net_name_check(NULL, "bridge", &e), RV_EINVAL);
}

static void test_macs(void **state)
{
	static const char *const bad[] = {"", "02:00:00:00:00", "02:00:00:00:00:0",
		"02:00:00:00:00:00:00", "02-00-00-00-00-00", "01:00:00:00:00:00",
		"ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "0g:00:00:00:00:00",
		"02:00:00:00:00:0 ", " 2:00:00:00:00:00"};
	char mac[NET_MAC_SIZE], again[NET_MAC_SIZE];
	struct rv_error e;
	struct prng prng;
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_int_equal(net_mac_parse(bad[i], mac, &e), RV_EINVAL);
	assert_int_equal(net_mac_parse(NULL, mac, &e), RV_EINVAL);
	assert_int_equal(net_mac_parse("00:16:3E:AB:cd:09", mac, &e), 0);
	assert_string_equal(mac, "00:16:3e:ab:cd:09");
	prng_seed(&prng, 3);
	for (int i = 0; i < 2000; i++) {
		net_mac_random(&prng, mac);
		assert_int_equal(net_mac_parse(mac, again, &e), 0);
		assert_string_equal(mac, again);
		assert_int_equal(strtol(mac, NULL, 16) & 3, 2);
		assert_int_not_equal(strtol(mac, NULL, 16), 0xfe);
	}
}

static void test_made_names(void **state)
{
	char name[NET_NAME_SIZE], other[NET_NAME_SIZE];
	struct uuid u = uuid_of(0xab);
	struct rv_error e;
	(void)state;
	assert_string_equal(net_bridge_name(&u, name), "rvab0000000000");
	assert_int_equal(net_name_check(name, "bridge", &e), 0);
	assert_string_equal(net_vlan_name("eth0", 4094, name), "eth0.4094");
	net_vlan_name("enx0123456789ab", 4094, name);
	net_vlan_name("enx0123456789ac", 4094, other);
	assert_int_equal(net_name_check(name, "VLAN", &e), 0);
	assert_string_not_equal(name, other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_macs),
		cmocka_unit_test(test_made_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
