/* list, map and buf, each against a plain model where one helps. */
#include "base/buf.h"
#include "base/list.h"
#include "base/map.h"
#include "base/prng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

struct item {
	int number;
	struct list node;
};

static void list_keeps_order_and_allows_removal_inside_the_loop(void **state)
{
	struct item items[5];
	struct list head;
	int seen = 0;

	(void)state;
	list_init(&head);
	assert_true(list_empty(&head));
	for (int i = 0; i < 5; i++) {
		items[i].number = i;
		list_push_back(&head, &items[i].node);
	}
	LIST_FOR_EACH_SAFE (node, &head) {
		struct item *item = CONTAINER_OF(node, struct item, node);

		assert_int_equal(item->number, seen++);
		if (item->number % 2)
			list_remove(node);
	}
	assert_int_equal(seen, 5);
	list_remove(&items[1].node); /* a second time: harmless */
	seen = 0;
	LIST_FOR_EACH (node, &head)
		assert_int_equal(
			CONTAINER_OF(node, struct item, node)->number, seen++ * 2);
	assert_int_equal(seen, 3);
}

enum { MODEL_KEYS = 500 };

/* Random adds and removes, checked against an array after each. */
static void map_agrees_with_a_model(void **state)
{
	static uint32_t keys[MODEL_KEYS];
	bool held[MODEL_KEYS] = {false};
	size_t count = 0;
	struct prng prng;
	struct map map;

	(void)state;
	prng_seed(&prng, 7);
	map_init(&map, 99);
	assert_null(map_get(&map, "x", 1));
	assert_null(map_remove(&map, "x", 1));
	for (uint32_t i = 0; i < MODEL_KEYS; i++)
		keys[i] = i;
	for (int round = 0; round < 50000; round++) {
		size_t k = prng_below(&prng, MODEL_KEYS);

		if (prng_chance_ppm(&prng, 500000)) {
			int rc = map_add(&map, &keys[k], sizeof keys[k], &held[k]);

			assert_int_equal(rc, held[k] ? RV_EEXIST : 0);
			count += !held[k];
			held[k] = true;
		} else {
			void *value = map_remove(&map, &keys[k], sizeof keys[k]);

			assert_ptr_equal(value, held[k] ? &held[k] : NULL);
			count -= held[k];
			held[k] = false;
		}
		assert_int_equal(map.count, count);
		k = prng_below(&prng, MODEL_KEYS);
		assert_ptr_equal(map_get(&map, &keys[k], sizeof keys[k]),
			held[k] ? &held[k] : NULL);
	}
	for (size_t cursor = 0, left = count;; left--) {
		bool *value = map_next(&map, &cursor);

		if (!value) {
			assert_int_equal(left, 0);
			break;
		}
		assert_true(*value);
	}
	map_fini(&map);
}

static void buf_is_a_queue_of_bytes(void **state)
{
	uint8_t next_in = 0, next_out = 0;
	struct prng prng;
	struct buf buf;

	(void)state;
	prng_seed(&prng, 3);
	buf_init(&buf, 4096);
	for (int round = 0; round < 20000; round++) {
		uint8_t bytes[300];
		size_t n = prng_below(&prng, sizeof bytes);

		if (prng_chance_ppm(&prng, 500000)) {
			size_t before = buf_len(&buf);

			for (size_t i = 0; i < n; i++)
				bytes[i] = (uint8_t)(next_in + i);
			if (buf_append(&buf, bytes, n) == 0) {
				next_in = (uint8_t)(next_in + n);
			} else {
				assert_true(before + n > 4096);
				assert_int_equal(buf_len(&buf), before);
			}
		} else {
			n = n < buf_len(&buf) ? n : buf_len(&buf);
			for (size_t i = 0; i < n; i++)
				assert_int_equal(buf_data(&buf)[i], next_out++);
			buf_consume(&buf, n);
		}
	}
	buf_fini(&buf);
}

static void buf_refuses_beyond_its_cap(void **state)
{
	uint8_t *room;
	struct buf buf;

	(void)state;
	buf_init(&buf, 10);
	assert_int_equal(buf_reserve(&buf, SIZE_MAX, &room), RV_ETOOBIG);
	assert_int_equal(buf_append(&buf, "0123456789", 10), 0);
	assert_int_equal(buf_append(&buf, "x", 1), RV_ETOOBIG);
	buf_consume(&buf, 4);
	assert_int_equal(buf_append(&buf, "abcd", 4), 0);
	assert_memory_equal(buf_data(&buf), "456789abcd", 10);
	buf_fini(&buf);
}

static void buf_prints(void **state)
{
	struct buf buf;

	(void)state;
	buf_init(&buf, 4096);
	assert_int_equal(buf_printf(&buf, "%s-%d", "vm", 7), 0);
	assert_int_equal(buf_len(&buf), 4);
	assert_memory_equal(buf_data(&buf), "vm-7", 4);
	buf_fini(&buf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(list_keeps_order_and_allows_removal_inside_the_loop),
		cmocka_unit_test(map_agrees_with_a_model),
		cmocka_unit_test(buf_is_a_queue_of_bytes),
		cmocka_unit_test(buf_refuses_beyond_its_cap),
		cmocka_unit_test(buf_prints),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
