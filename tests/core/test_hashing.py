"""Golden vectors: these numbers decide every order ever made, and may never change."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penstock_service.core.hashing import digest_ids, hash_rows, key_of, mix64, rehash

U64 = st.integers(0, 2**64 - 1)


def test_mix64_is_the_published_finaliser_of_splitmix64() -> None:
    # The first outputs of splitmix64 seeded with 1234567, as published on Rosetta Code.
    golden = 0x9E3779B97F4A7C15
    outputs = [mix64(1234567 + golden * i) for i in range(1, 6)]
    assert outputs == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_hash_rows_gives_the_elements_of_the_splitmix64_sequence() -> None:
    got = hash_rows(1234567, np.arange(5, dtype=np.uint64))
    assert got.tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_golden_vectors_of_our_own_keys_and_digests() -> None:
    ids = np.array([0, 1, 2**48 + 5, 2**63], np.uint64)
    assert key_of(7, 0, 3) == 5362837784427540571
    assert rehash(ids, 99).tolist() == [
        8777055843625058441,
        17508005127702757215,
        8068892589900051544,
        13961533320143174131,
    ]
    assert digest_ids(ids) == 10224906849064131815


@given(st.lists(U64, max_size=200), U64)
def test_hashing_many_is_hashing_each(rows: list[int], key: int) -> None:
    together = hash_rows(key, np.array(rows, np.uint64))
    assert together.tolist() == [mix64(key + (row + 1) * 0x9E3779B97F4A7C15) for row in rows]


@given(st.lists(U64, min_size=2, max_size=50, unique=True), st.randoms())
def test_a_digest_knows_the_order(ids: list[int], random: object) -> None:
    swapped = [ids[1], ids[0], *ids[2:]]
    assert digest_ids(np.array(ids, np.uint64)) != digest_ids(np.array(swapped, np.uint64))
    assert digest_ids(np.array(ids, np.uint64)) != digest_ids(np.array(ids[:-1], np.uint64))


def test_blocks_do_not_show() -> None:
    rows = np.arange(200_000, dtype=np.uint64)
    whole = hash_rows(5, rows)
    assert np.array_equal(whole[150_000:150_010], hash_rows(5, rows[150_000:150_010]))
    assert np.array_equal(rehash(whole, 3)[199_990:], rehash(whole[199_990:], 3))
