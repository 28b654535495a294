"""Addresses that are none, other sites, and what browsers are told."""

import pytest

from tests.server.conftest import (
    HASHES,
    ask,
)

UNDER = "/api/toy-model"
PROMPT = f"{UNDER}/prompt/{HASHES[0]}"


# --- who may ask, and what for -------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "/api/toy-model/prompt/..%2f..%2fetc%2fpasswd.json",
        "/static/../../../../etc/passwd",
        "/static/%2e%2e/%2e%2e/app.py",
        "/static/..%2fapp.py",
        "/static//etc/passwd",
        "/static/index.html%00",
        "/api/../../etc/passwd",
        "/api/%2e%2e/index.json",
        "/api/toy-model/model.json/",
        "/api/toy-model//model.json",
        "/api/toy-model/model.json%0a",
        "/etc/passwd",
        "//etc/passwd",
        "/api/<script>alert(1)</script>",
        "/api/" + "a" * 10_000,
        f"{UNDER}/prompts/99999999999999999999.json",
        f"{UNDER}/prompt/{HASHES[0]}/pattern/L99999999999999H0.npy",
        f"{UNDER}/prompt/{HASHES[0]}/pattern/LxHx.npy",
        f"{UNDER}/prompt/{HASHES[0]}/pattern/L1Hx.packed.npy",
        f"{UNDER}/prompt/{HASHES[0]}/pattern/LHx.packed.npy",
        f"{UNDER}/prompt/{HASHES[0]}/pictures/L1.npy",
        f"{UNDER}/prompt/~zzz.json",
        f"{UNDER}/prompt/~{2**70:x}.json",
        f"{UNDER}/prompt/{HASHES[0]}/figures/spectra/L2H3.svg",
        f"{UNDER}/prompt/{HASHES[0]}/figures/nothing/L0H0.png",
        f"{UNDER}/prompt/{HASHES[0]}/figures/spectra/L0H0.html",
        f"{UNDER}/prompt/{HASHES[0]}/pattern/L0H0.png?cmap=nothing",
        f"{UNDER}/prompt/{HASHES[0]}/pattern/L0H0.png?scale=cube",
        f"{UNDER}/prompt/{HASHES[0]}/pictures.npy?heads=L9",
        f"{UNDER}/prompt/{HASHES[0]}/pictures.npy?heads=L1",
        f"{UNDER}/prompt/{HASHES[0]}/pictures.npy?heads=L0~banana",
        f"{UNDER}/prompts/5.json",
        "/api/other/model.json",
    ],
)
def test_what_is_not_there_is_a_sentence(rich_server, target):
    reply = ask(rich_server, target)
    assert reply.status == 404
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert len(reply.json()["error"]) > 20
    assert len(reply.body) < 500
    assert b"root:" not in reply.body


def test_sentences_say_what_there_is(rich_server):
    def said(rest: str) -> str:
        return ask(rich_server, f"{PROMPT}/{rest}").json()["error"]

    assert said("pictures.npy?heads=L0~banana").startswith("'banana' (term 2 of 2) is not a head")
    assert said("pattern/L1H0.npy") == "no head L1H0 in rich.h5: it has heads 0-3 of layers 0, 2, 3"
    assert (
        "no model 'gpt2' here: there is toy-model"
        in ask(rich_server, "/api/gpt2/model.json").json()["error"]
    )
    assert (
        "no prompt 'abc' in rich.h5" in ask(rich_server, f"{UNDER}/prompt/abc.json").json()["error"]
    )


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_nothing_can_be_written(rich_server, method):
    reply = ask(rich_server, "/api/index.json", method=method)
    assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "[", "10.0.0.1"]
)
def test_other_names_are_refused(rich_server, host):
    assert ask(rich_server, "/api/index.json", host=host).status in (400, 403)


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:1", "LOCALHOST", "[::1]:8000", "127.0.0.1"]
)
def test_own_names_are_answered(rich_server, host):
    assert ask(rich_server, "/api/index.json", host=host).status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"}, 403),
        ({"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "cors"}, 403),
        (
            {
                "Sec_Fetch_Site": "cross-site",
                "Sec_Fetch_Mode": "navigate",
                "Sec_Fetch_Dest": "iframe",
            },
            403,
        ),
        (
            {
                "Sec_Fetch_Site": "cross-site",
                "Sec_Fetch_Mode": "navigate",
                "Sec_Fetch_Dest": "document",
            },
            200,
        ),
        ({"Sec_Fetch_Site": "same-origin"}, 200),
        ({"Sec_Fetch_Site": "none"}, 200),
    ],
)
def test_other_sites_are_refused(rich_server, headers, status):
    assert ask(rich_server, "/", **headers).status == status


def test_own_origin_is_answered(rich_server):
    assert ask(rich_server, "/", Origin=f"http://127.0.0.1:{rich_server.port}").status == 200


def test_very_long_addresses(rich_server):
    assert ask(rich_server, f"{PROMPT}/pictures.npy?heads=" + "L0~" * 6000).status == 414


@pytest.mark.parametrize("address", ["/", "/index.html", "/single.html?head=toy-model.L0.H1"])
def test_pages_allow_nothing_but_their_own(rich_server, address):
    reply = ask(rich_server, address)
    policy = reply.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "object-src 'none'" in policy
    assert "unsafe" not in policy
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("name", ["spectra/L0H1.svg", "grid/all.html"])
def test_figures_cannot_run(rich_server, name):
    hashes = {"spectra/L0H1.svg": HASHES[0], "grid/all.html": HASHES[2]}
    reply = ask(rich_server, f"{UNDER}/prompt/{hashes[name]}/figures/{name}")
    assert reply.status == 200
    assert reply.headers["content-security-policy"].startswith("sandbox; default-src 'none'")


def test_text_of_files_never_is_markup(rich_server):
    body = ask(rich_server, f"{PROMPT}.json")
    assert body.headers["content-type"] == "application/json"
    assert b"toy" not in ask(rich_server, "/").body  # pages hold nothing of the data
