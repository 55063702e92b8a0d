"""Verify where etcd is looked for: Homeport's settings first, etcdctl's variables for the rest."""

import pytest

from scheduler.config import Config, ConfigError
from scheduler.store.etcd.options import options_of


def test_without_a_word_it_is_on_this_machine():
    assert options_of(Config(), {}).endpoints == ("http://127.0.0.1:2379",)


def test_etcdctl_s_variables_fill_what_the_settings_leave_open():
    environ = {
        "ETCDCTL_ENDPOINTS": "https://a:2379, b:2379,",
        "ETCDCTL_CACERT": "/ca",
        "ETCDCTL_CERT": "/cert",
        "ETCDCTL_KEY": "/key",
        "ETCDCTL_USER": "ann:pass:word",
    }

    options = options_of(Config(etcd_ca_file="/other"), environ)

    assert options.endpoints == ("https://a:2379", "https://b:2379")
    assert (options.ca_file, options.cert_file, options.key_file) == ("/other", "/cert", "/key")
    assert (options.user, options.password) == ("ann", "pass:word")


def test_the_settings_win():
    config = Config(etcd_endpoints=("http://mine:1",), etcd_user="bob", etcd_password="b")
    environ = {"ETCDCTL_ENDPOINTS": "https://a:2379", "ETCDCTL_USER": "ann:secret"}

    options = options_of(config, environ)

    assert options.endpoints == ("http://mine:1",)
    assert (options.user, options.password) == ("bob", "b")


def test_a_password_of_its_own_goes_with_a_user_that_has_none():
    options = options_of(Config(), {"ETCDCTL_USER": "ann", "ETCDCTL_PASSWORD": "p"})
    assert (options.user, options.password) == ("ann", "p")
    assert options_of(Config(etcd_user="ann"), {}, password="from a file").password == "from a file"


def test_the_password_is_in_no_repr():
    config = Config(etcd_user="ann", etcd_password="hunter2")

    assert "hunter2" not in repr(config)
    assert "hunter2" not in repr(options_of(config, {}))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (("a:2379",), ("http://a:2379",)),
        (("http://a:2379/", "http://a:2379"), ("http://a:2379",)),
        (("[::1]:2379",), ("http://[::1]:2379",)),
    ],
)
def test_endpoints_are_written_in_one_way_and_each_once(given, expected):
    assert options_of(Config(etcd_endpoints=given), {}).endpoints == expected


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"etcd_endpoints": ("a",)}, "HOST:PORT"),
        ({"etcd_endpoints": ("ftp://a:1",)}, "http:// or https://"),
        ({"etcd_endpoints": ("http://a:1", "https://b:1")}, "make them all alike"),
        ({"etcd_endpoints": ("http://a:1",), "etcd_ca_file": "/ca"}, "write https://"),
        ({"etcd_cert_file": "/c"}, "both or neither"),
        ({"etcd_user": "ann"}, "has no password"),
        ({"etcd_prefix": "/"}, "must not be empty"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_in_words(config, words):
    with pytest.raises(ConfigError, match=words):
        options_of(Config(**config), {})


def test_a_prefix_ends_at_a_slash_so_that_no_cluster_sees_another_s():
    assert options_of(Config(etcd_prefix="/one"), {}).prefix == "/one/"
