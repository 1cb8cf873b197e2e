"""The cache: expiry, its bound, and which entry makes room."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tracerouted.naming.cache import TtlCache

MISSING = object()


def test_an_entry_lives_until_its_time():
    """What was put is returned until, and not at, the end of its time."""
    cache = TtlCache(10)
    cache.put("a", "x", ttl=5, now=100.0)
    assert cache.get("a", 104.999, MISSING) == "x"
    assert cache.get("a", 105.0, MISSING) is MISSING
    assert len(cache) == 0


def test_none_is_a_value():
    """A remembered None differs from nothing remembered."""
    cache = TtlCache(10)
    cache.put("a", None, ttl=5, now=0)
    assert cache.get("a", 1, MISSING) is None
    assert cache.get("b", 1, MISSING) is MISSING


def test_the_least_recently_used_makes_room():
    """When full, the entry neither put nor got for longest goes."""
    cache = TtlCache(2)
    cache.put("a", 1, ttl=100, now=0)
    cache.put("b", 2, ttl=100, now=0)
    cache.get("a", 1, MISSING)
    cache.put("c", 3, ttl=100, now=2)
    assert [cache.get(key, 3, MISSING) for key in "abc"] == [1, MISSING, 3]


def test_putting_again_is_use():
    """An entry put again is not the next to make room."""
    cache = TtlCache(2)
    for key in "abac":
        cache.put(key, key, ttl=100, now=0)
    assert [cache.get(key, 1, MISSING) for key in "abc"] == ["a", MISSING, "c"]


def test_putting_again_replaces_value_and_time():
    """A second put under a key counts alone."""
    cache = TtlCache(2)
    cache.put("a", 1, ttl=1, now=0)
    cache.put("a", 2, ttl=100, now=0)
    assert cache.get("a", 50, MISSING) == 2
    assert len(cache) == 1


steps = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.integers(0, 99), st.floats(0, 10), st.floats(0, 5), st.booleans()),
    max_size=50,
)


@given(steps, st.integers(1, 4))
def test_it_never_lies_and_never_grows(steps, capacity):
    """Whatever is put and got, a hit is the latest value put under that key and not expired; the bound holds."""
    cache, truth, now = TtlCache(capacity), {}, 0.0
    for key, value, ttl, passed, put in steps:
        now += passed
        if put:
            cache.put(key, value, ttl, now)
            truth[key] = (value, now + ttl)
        found = cache.get(key, now, MISSING)
        if found is not MISSING:
            assert found == truth[key][0]
            assert now < truth[key][1]
        elif put:
            assert truth[key][1] <= now
        assert len(cache) <= capacity
