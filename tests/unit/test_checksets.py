"""From a pillar's words for checks to what real servers are asked."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from saltext.lvs import blocks, checksets, checkwords, model
from saltext.lvs.checks import ENVIRONMENT, Check, Exec, How, Http, Path, Tcp, Tls
from saltext.lvs.checksets import Key
from saltext.lvs.errors import InvalidConfig
from saltext.lvs.health import Rules
from saltext.lvs.model import CheckType
from saltext.lvs.pacing import Pace

VIP, RS1, RS2 = (ipaddress.ip_address(f"10.10.10.{last}") for last in (10, 41, 42))
VIP6, RS6 = ipaddress.ip_address("fd00::10"), ipaddress.ip_address("fd00::41")
WEB = "lvs:virtual_servers:web"


def pillar(**web: Any) -> dict[str, Any]:
    """A cluster of one virtual server."""
    usual: dict[str, Any] = {"address": "10.10.10.10", "port": 80, "real_servers": ["rs1"]}
    named = "group" in web or web.get("fwmark")
    kept = {key: value for key, value in usual.items() if not named or key == "real_servers"}
    return {
        "lvs": {
            "directors": ["lb1"],
            "real_servers": {
                "rs1": {"address": "10.10.10.41"},
                "rs2": {"address": "10.10.10.42"},
                "rs6": {"address": "fd00::41"},
                "off": {"address": "10.10.10.49", "enabled": False},
            },
            "virtual_servers": {"web": {**kept, **web}},
        }
    }


def cluster(**web: Any) -> model.Cluster:
    return model.from_pillar(pillar(**web))


def hows(**web: Any) -> list[tuple[str, str, How]]:
    """What is asked: of whom, as what, and how."""
    return [
        (check.key.real_server, check.key.kind, check.how)
        for check in checksets.of(cluster(**web))
        if isinstance(check.key, Key)
    ]


def types(*words: str, **more: Any) -> dict[str, Any]:
    return {"types": list(words), **more}


PAGE = {
    "path": "/health",
    "host": "www.example.com",
    "method": "GET",
    "status": [200, "301-303"],
    "body": "^OK",
    "digest": "ab" * 32,
}
PAGE_ASKED = Http(
    RS1,
    80,
    path="/health",
    host="www.example.com",
    statuses=frozenset({200, 301, 302, 303}),
    body=re.compile(b"^OK"),
    digest="ab" * 32,
)
VARIABLES = (
    ("LVS_ADDRESS", "10.10.10.41"),
    ("LVS_PORT", "80"),
    ("LVS_REAL_SERVER", "rs1"),
    ("LVS_VIP", "10.10.10.10"),
    ("LVS_VIRTUAL_SERVER", "web"),
)
COMMAND = ["/bin/ask", "{address}:{port}", "a b; {real_server}", "-v{vip}", "{virtual_server}", 3]
PATH_AND_TCP: list[tuple[str, str, How]] = [
    ("rs1", "path", Path(RS1, VIP, 80)),
    ("rs1", "tcp", Tcp(RS1, 80)),
]

ASKED: dict[str, tuple[dict[str, Any], list[tuple[str, str, How]]]] = {
    "direct routing: along the path, and at its own address": ({}, PATH_AND_TCP),
    "a real server that is out of service is left alone": (
        {"real_servers": ["off", "rs1"]},
        PATH_AND_TCP,
    ),
    "one with weight 0 is not": ({"real_servers": {"rs1": {"weight": 0}}}, PATH_AND_TCP),
    "IPv6": (
        {"address": "fd00::10", "real_servers": ["rs6"]},
        [("rs6", "path", Path(RS6, VIP6, 80)), ("rs6", "tcp", Tcp(RS6, 80))],
    ),
    "masquerading: its own port": (
        {"forward": "masq", "real_servers": {"rs1": {"port": 8080}}},
        [("rs1", "tcp", Tcp(RS1, 8080))],
    ),
    "a tunnel, of another family": (
        {"forward": "tunnel", "real_servers": ["rs6"]},
        [("rs6", "tcp", Tcp(RS6, 80))],
    ),
    "another port": (
        {"check": {"port": 8080}},
        [("rs1", "path", Path(RS1, VIP, 8080)), ("rs1", "tcp", Tcp(RS1, 8080))],
    ),
    "UDP": ({"protocol": "udp"}, []),
    "UDP with a port of TCP": (
        {"protocol": "udp", "check": {"port": 53}},
        [("rs1", "path", Path(RS1, VIP, 53)), ("rs1", "tcp", Tcp(RS1, 53))],
    ),
    "any port": ({"port": 0, "persistence": 5}, []),
    "any port, with one for the check": (
        {"port": 0, "persistence": 5, "check": {"port": 21}},
        [("rs1", "path", Path(RS1, VIP, 21)), ("rs1", "tcp", Tcp(RS1, 21))],
    ),
    "a mark": ({"address": "10.10.10.10", "fwmark": 7}, []),
    "a mark, with a port for the check": (
        {"address": "10.10.10.10", "fwmark": 7, "check": {"port": 80}},
        PATH_AND_TCP,
    ),
    "the path alone": (
        {"check": types("path")},
        [("rs1", "path", Path(RS1, VIP, 80))],
    ),
    "nothing at all": ({"check": types()}, []),
    "what it says, from an address": (
        {
            "check": types(
                "tcp", send="EHLO me\r\n", expect="^250[ -]", bindto="10.10.10.11", port=25
            )
        },
        [
            (
                "rs1",
                "tcp",
                Tcp(
                    RS1,
                    25,
                    bindto=ipaddress.ip_address("10.10.10.11"),
                    send=b"EHLO me\r\n",
                    expect=re.compile(b"^250[ -]"),
                ),
            )
        ],
    ),
    "a page": ({"check": types("http", http=PAGE)}, [("rs1", "http", PAGE_ASKED)]),
    "any page": ({"check": types("http")}, [("rs1", "http", Http(RS1, 80))]),
    "a page by TLS": (
        {
            "port": 443,
            "check": types(
                "https",
                http={"host": "www.example.com"},
                tls={"name": "example.com", "authorities": "/etc/ssl/our.pem"},
            ),
        },
        [
            (
                "rs1",
                "https",
                Http(
                    RS1,
                    443,
                    host="www.example.com",
                    tls=Tls("example.com", authorities="/etc/ssl/our.pem"),
                ),
            )
        ],
    ),
    "a page by TLS, whoever shows it": (
        {"check": types("https", tls={"verify": False})},
        [("rs1", "https", Http(RS1, 80, tls=Tls(verify=False)))],
    ),
    "a program, each argument one": (
        {"check": types("exec", command=COMMAND)},
        [
            (
                "rs1",
                "exec",
                Exec(
                    (
                        "/bin/ask",
                        "10.10.10.41:80",
                        "a b; rs1",
                        "-v10.10.10.10",
                        "web",
                        "3",
                    ),
                    (*ENVIRONMENT, *VARIABLES),
                ),
            )
        ],
    ),
    "a program, where there is nothing to connect to": (
        {"protocol": "sctp", "forward": "tunnel", "check": types("exec", command="/bin/true")},
        [
            (
                "rs1",
                "exec",
                Exec(
                    ("/bin/true",),
                    (*ENVIRONMENT, VARIABLES[0], ("LVS_PORT", "80"), *VARIABLES[2:]),
                ),
            )
        ],
    ),
    "a group: each VIP, and the own address once": (
        {"group": ["10.10.10.61-62 80", "10.10.10.63 80"], "managed_by": "keepalived"},
        [
            *(
                ("rs1", "path", Path(RS1, ipaddress.ip_address(f"10.10.10.{last}"), 80))
                for last in (61, 62, 63)
            ),
            ("rs1", "tcp", Tcp(RS1, 80)),
        ],
    ),
    "a mark of keepalived's without a VIP": (
        {"fwmark": 7, "managed_by": "keepalived", "check": {"port": 80}},
        [("rs1", "tcp", Tcp(RS1, 80))],
    ),
    "what keepalived keeps, though no director has an address": (
        {"managed_by": "keepalived"},
        PATH_AND_TCP,
    ),
    "what keepalived checks by other words": (
        {"managed_by": "keepalived", "checkers": ["PING_CHECK"]},
        PATH_AND_TCP,
    ),
    "what keepalived is not to check": ({"managed_by": "keepalived", "checkers": []}, []),
}


@pytest.mark.parametrize(("web", "asked"), ASKED.values(), ids=ASKED.keys())
def test_what_the_pillar_says_is_asked(
    web: dict[str, Any], asked: list[tuple[str, str, How]]
) -> None:
    assert hows(**web) == asked


PACES: dict[str, tuple[dict[str, Any], Check]] = {
    "nothing said": ({}, Check(None, Tcp(RS1, 80), Pace(10), timeout=3, delay_before_retry=0)),
    "how often, and how long": (
        {"interval": 0.5, "connect_timeout": 0.2, "warmup": 0},
        Check(None, Tcp(RS1, 80), Pace(0.5, warmup=0), timeout=0.2, delay_before_retry=0),
    ),
    "again at its turn": (
        {"retry": 3},
        Check(None, Tcp(RS1, 80), Pace(10), timeout=3, delay_before_retry=0),
    ),
    "again soon, as keepalived says it": (
        {"retry": 3, "delay_before_retry": 0.5},
        Check(None, Tcp(RS1, 80), Pace(10), timeout=3, retry=3, delay_before_retry=0.5),
    ),
    "again soon, as fall says it": (
        {"fall": 4, "delay_before_retry": 0},
        Check(None, Tcp(RS1, 80), Pace(10), timeout=3, retry=3, delay_before_retry=0),
    ),
}


@pytest.mark.parametrize(("words", "expected"), PACES.values(), ids=PACES.keys())
def test_a_check_has_the_pillars_times(words: dict[str, Any], expected: Check) -> None:
    (check,) = checksets.of(cluster(check=types("tcp", **words)))
    key = Key("web", "rs1", "tcp", "10.10.10.41:80")
    assert check == Check(
        key,
        expected.how,
        expected.pace,
        expected.timeout,
        expected.retry,
        expected.delay_before_retry,
    )


RULES: dict[str, tuple[dict[str, Any], Rules]] = {
    "nothing said": ({}, Rules(1, 1, 3, 300, 30, 600)),
    "keepalived's word for fall": ({"retry": 2}, Rules(rise=1, fall=3)),
    "both": ({"retry": 1, "fall": 4, "rise": 2}, Rules(rise=2, fall=4)),
    "how long it is kept out": (
        {"hold": {"flaps": 5, "within": 60, "first": 10, "longest": 90}},
        Rules(1, 1, 5, 60, 10, 90),
    ),
    "longer at first than usual at all": ({"hold": {"first": 900}}, Rules(1, 1, 3, 300, 900, 900)),
}


@pytest.mark.parametrize(("words", "rules"), RULES.values(), ids=RULES.keys())
def test_the_machine_counts_as_the_pillar_says(words: dict[str, Any], rules: Rules) -> None:
    assert checksets.rules_of(cluster(check=words).virtual_servers["web"]) == rules


def test_every_check_of_a_cluster_has_a_key_of_its_own() -> None:
    text = """
    a: {address: 10.10.10.10, port: 80, real_servers: [rs1, rs2]}
    b: {address: 10.10.10.10, port: 81, real_servers: [rs1, rs2]}
    c:
      address: 10.10.10.10
      port: 82
      real_servers: [rs1, rs2]
      check: {types: [path, tcp, http, https, exec], tls: {verify: False}, command: /bin/true}
    """
    several = pillar()
    several["lvs"]["virtual_servers"] = yaml.safe_load(text)
    checks = checksets.of(model.from_pillar(several))
    assert (len(checks), len({check.key for check in checks})) == (18, 18)
    assert [check.key for check in checks][-2:] == [
        Key("c", "rs2", "https", "10.10.10.42:82"),
        Key("c", "rs2", "exec", "/bin/true"),
    ]


def test_the_same_pillar_asks_the_same() -> None:
    """What the engine compares: it would begin anew otherwise."""
    words: dict[str, Any] = {"check": types("tcp", "http", "exec", http=PAGE, command=COMMAND)}
    words["check"]["expect"] = "^2"
    assert checksets.of(cluster(**words)) == checksets.of(cluster(**words))


@given(st.lists(st.text(st.characters(exclude_characters="\0"), max_size=20), max_size=5))
def test_no_argument_becomes_two_whatever_stands_in_it(words: list[str]) -> None:
    command = ["/bin/ask", *(word.replace("{", "") for word in words), "{address}"]
    (check,) = checksets.of(cluster(check=types("exec", command=command)))
    assert isinstance(check.how, Exec)
    assert check.how.command == (*command[:-1], "10.10.10.41")


# --------------------------------------------------------------------------------------------------
# What is refused

CHECK = f"{WEB}:check"
WITH_SALT = {"managed_by": "salt"}
WITH_KEEPALIVED = {"managed_by": "keepalived"}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a type that there is not": (
        {"check": types("tcp", "icmp")},
        f"{CHECK}:types:1 is 'icmp'; it should be one of path, tcp, http, https, exec",
    ),
    "a misspelt key": (
        {"check": {"intervall": 3}},
        f"{CHECK}:intervall is 3; it should be left out, or one of: bindto, command, "
        "connect_timeout, delay_before_retry, expect, fall, hold, http, interval, port, retry, "
        "rise, send, tls, types, warmup",
    ),
    "retries that would go on after the fall": (
        {"check": {"retry": 3, "fall": 2}},
        f"{CHECK}:retry is 3; it should be below fall, 2",
    ),
    "no time": (
        {"check": {"delay_before_retry": -1}},
        f"{CHECK}:delay_before_retry is -1; it should be a number from 0 to 86400",
    ),
    "an address of another family": (
        {"check": {"bindto": "fd00::11"}},
        f"{CHECK}:bindto is 'fd00::11'; it should be an IPv4 address, like that of rs1",
    ),
    "no regular expression": (
        {"check": {"expect": "("}},
        f"{CHECK}:expect is '('; it should be a regular expression: missing ), unterminated "
        "subpattern at position 0",
    ),
    "something said, and nothing expected": (
        {"check": {"send": "PING\r\n"}},
        f"{CHECK}:expect is missing; it should be what the answer to send must have in it",
    ),
    "something expected that nobody asks for": (
        {"check": types("path", expect="^2")},
        f"{CHECK}:expect is '^2'; it should be left out, or given with tcp in types",
    ),
    "a page that nobody asks for": (
        {"check": {"http": {"path": "/"}}},
        f"{CHECK}:http is {{'path': '/'}}; it should be left out, or given with http or https in "
        "types",
    ),
    "a certificate that nobody asks for": (
        {"check": types("http", tls={"verify": False})},
        f"{CHECK}:tls is {{'verify': False}}; it should be left out, or given with https in types",
    ),
    "a program that nobody runs": (
        {"check": {"command": ["/bin/true"]}},
        f"{CHECK}:command is ['/bin/true']; it should be left out, or given with exec in types",
    ),
    "a path with a second request in it": (
        {"check": types("http", http={"path": "/ HTTP/1.1\r\nX: y"})},
        f"{CHECK}:http:path is '/ HTTP/1.1\\r\\nX: y'; it should be a path such as /health, "
        "without spaces",
    ),
    "a host with another header in it": (
        {"check": types("http", http={"host": "www\r\nX: y"})},
        f"{CHECK}:http:host is 'www\\r\\nX: y'; it should be a host name such as www.example.com",
    ),
    "a host whose name has an empty part": (
        {"check": {"types": ["https"], "http": {"host": "a..b"}}},
        f"{CHECK}:http:host is 'a..b'; it should be a host name such as www.example.com",
    ),
    "a name of a certificate that is too long": (
        {"check": {"types": ["https"], "tls": {"name": f"{'a' * 64}.example.com"}}},
        f"{CHECK}:tls:name is '{'a' * 64}.example.com'; it should be the host name of a "
        "certificate",
    ),
    "a method that changes something": (
        {"check": types("http", http={"method": "DELETE"})},
        f"{CHECK}:http:method is 'DELETE'; it should be one of GET, HEAD, OPTIONS",
    ),
    "no status": (
        {"check": types("http", http={"status": [200, 99]})},
        f"{CHECK}:http:status:1 is 99; it should be a status from 200 to 599, or a range such as "
        "200-399",
    ),
    "a range that is none": (
        {"check": types("http", http={"status": "400-300"})},
        f"{CHECK}:http:status:0 is '400-300'; it should be a status from 200 to 599, or a range "
        "such as 200-399",
    ),
    "no right status at all": (
        {"check": types("http", http={"status": []})},
        f"{CHECK}:http:status is []; it should be at least one, or left out",
    ),
    "no digest": (
        {"check": types("http", http={"digest": "abc"})},
        f"{CHECK}:http:digest is 'abc'; it should be an MD5, SHA-1, SHA-256 or SHA-512 in "
        "hexadecimal digits",
    ),
    "a body that does not come": (
        {"check": types("http", http={"method": "HEAD", "body": "OK"})},
        f"{CHECK}:http:body is 'OK'; it should be left out: HEAD brings no body",
    ),
    "a certificate of nobody": (
        {"check": types("https")},
        f"{CHECK}:tls:name is missing; it should be the host name of the certificate (http:host "
        "does too), or verify: False",
    ),
    "authorities that nobody asks": (
        {"check": types("https", tls={"verify": False, "authorities": "/a.pem"})},
        f"{CHECK}:tls:authorities is '/a.pem'; it should be left out, as verify is False",
    ),
    "authorities that are nowhere": (
        {"check": types("https", tls={"name": "a", "authorities": "a.pem"})},
        f"{CHECK}:tls:authorities is 'a.pem'; it should be the absolute path of a file in PEM",
    ),
    "no program": (
        {"check": types("exec")},
        f"{CHECK}:command is missing; it should be the program of exec and its arguments",
    ),
    "an empty command": (
        {"check": types("exec", command=[])},
        f"{CHECK}:command is []; it should be a program and its arguments",
    ),
    "a line for a shell": (
        {"check": types("exec", command="/bin/ask rs1 | grep OK")},
        f"{CHECK}:command:0 is '/bin/ask rs1 | grep OK'; it should be the absolute path of a "
        "program; its arguments are items of their own",
    ),
    "a program somewhere": (
        {"check": types("exec", command=["ask"])},
        f"{CHECK}:command:0 is 'ask'; it should be the absolute path of a program; its arguments "
        "are items of their own",
    ),
    "an argument that is none": (
        {"check": types("exec", command=["/bin/ask", ["-v"]])},
        f"{CHECK}:command:1 is ['-v']; it should be text, or a number",
    ),
    "a placeholder that is none": (
        {"check": types("exec", command=["/bin/ask", "-H{adress}"])},
        f"{CHECK}:command:1 is '-H{{adress}}'; it should be without {{adress}}, or one of "
        "{address}, {port}, {real_server}, {vip}, {virtual_server}",
    ),
    "shorter in the end than at first": (
        {"check": {"hold": {"first": 60, "longest": 30}}},
        f"{CHECK}:hold:longest is 30; it should be a number from 60 to 86400",
    ),
    "a path through another forwarding": (
        {"forward": "masq", "check": types("tcp", "path")},
        f"{CHECK}:types:1 is 'path'; it should be left out: forward masq has no such check",
    ),
    "a connection to UDP": (
        {"protocol": "udp", "check": types("tcp")},
        f"{CHECK}:types:0 is 'tcp'; it should be left out: the check is a TCP connection, and "
        "needs a port for it",
    ),
    "a page without a port": (
        {"address": "10.10.10.10", "fwmark": 7, "check": types("http")},
        f"{CHECK}:types:0 is 'http'; it should be left out: the virtual server has no port of its "
        "own",
    ),
    "a page where keepalived checks": (
        {"check": types("tcp", "http"), **WITH_KEEPALIVED},
        f"{CHECK}:types:1 is 'http'; it should be path or tcp where keepalived keeps the virtual "
        "server: it has checkers for others",
    ),
    "an answer where keepalived checks": (
        {"check": {"expect": "^2"}, **WITH_KEEPALIVED},
        f"{CHECK}:expect is '^2'; it should be left out where keepalived keeps the virtual server",
    ),
    "holding where keepalived decides": (
        {"check": {"hold": {"flaps": 2}}, **WITH_KEEPALIVED},
        f"{CHECK}:hold is {{'flaps': 2}}; it should be left out where keepalived keeps the "
        "virtual server",
    ),
    "a backup where keepalived decides": (
        {"real_servers": {"rs1": {"backup": True}, "rs2": {}}, **WITH_KEEPALIVED},
        f"{WEB}:real_servers:rs1:backup is True; it should be left out: keepalived knows no "
        "backup real servers",
    ),
    "nobody but backups": (
        {"real_servers": {"rs1": {"backup": True}}},
        f"{WEB}:real_servers is ['rs1']; it should be at least one that is no backup",
    ),
    "a sorry server that is one of those that failed": (
        {"sorry_server": {"address": "10.10.10.41"}},
        f"{WEB}:sorry_server:address is '10.10.10.41'; it should be another address than that of "
        "real server rs1, or it as a backup",
    ),
    "a quorum that nobody reaches": (
        {"quorum": 2, **WITH_SALT},
        f"{WEB}:quorum is 2; it should be at most 1, the weights of all real servers",
    ),
    "hysteresis beyond the quorum": (
        {"hysteresis": 1, **WITH_SALT},
        f"{WEB}:hysteresis is 1; it should be below the quorum, 1",
    ),
}


@pytest.mark.parametrize(("web", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_meant_is_refused_by_its_path(web: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        cluster(**web)
    assert [str(problem) for problem in caught.value.problems] == [words]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
KEYS = (
    *("types", "interval", "connect_timeout", "rise", "fall", "port", "retry", "warmup"),
    *("delay_before_retry", "bindto", "send", "expect", "http", "tls", "command", "hold"),
)
INNER_KEYS = ("path", "host", "method", "status", "body", "digest", "name", "verify", "flaps")
INNER = st.dictionaries(st.sampled_from(INNER_KEYS), ANYTHING)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.sampled_from(KEYS), ANYTHING | INNER, max_size=4),
    st.lists(st.sampled_from([kind.value for kind in CheckType]), max_size=3),
)
def test_whatever_stands_there_is_asked_or_refused_by_its_path(
    check: dict[str, Any], kinds: list[str]
) -> None:
    """An engine that is given it must not fail."""
    made = None
    problems: list[InvalidConfig] = []
    try:
        made = cluster(check={"types": kinds, **check})
    except InvalidConfig as error:
        problems = list(error.problems)
    if made is None:
        assert problems and all(problem.path.startswith(CHECK) for problem in problems)
    else:
        asked = {check.key.kind for check in checksets.of(made) if isinstance(check.key, Key)}
        assert asked == {kind.value for kind in made.virtual_servers["web"].check.types}


# --------------------------------------------------------------------------------------------------
# Where keepalived checks

USUAL = ["connect_timeout 3", "retry 0"]
BY_KEEPALIVED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "nothing said": ({}, USUAL),
    "again soon": (
        {"retry": 2, "delay_before_retry": 0.5},
        ["connect_timeout 3", "retry 2", "delay_before_retry 0.5"],
    ),
    "again at its turn": (
        {"retry": 2},
        ["connect_timeout 3", "retry 2", "delay_before_retry 10"],
    ),
    "the first one soon": ({"warmup": 1}, [*USUAL, "warmup 1"]),
    "from an address": ({"bindto": "10.10.10.11"}, ["bindto 10.10.10.11", *USUAL]),
}


@pytest.mark.parametrize(("words", "lines"), BY_KEEPALIVED.values(), ids=BY_KEEPALIVED.keys())
def test_keepalived_is_given_what_it_has_words_for(words: dict[str, Any], lines: list[str]) -> None:
    conf = blocks.of_director(cluster(check=words, **WITH_KEEPALIVED), "lb1")
    text = "\n".join(line for block in conf.virtual_servers for line in block.lines)
    inside = text.partition("TCP_CHECK {")[2].partition("}")[0]
    assert [line.strip() for line in inside.strip().splitlines()] == lines


# --------------------------------------------------------------------------------------------------
# What deserves a look

UNCHECKED = {
    "UDP": (
        {"protocol": "udp"},
        "the check is a TCP connection, and needs a port for it",
    ),
    "any port": ({"port": 0, "persistence": 5}, "the virtual server has no port of its own"),
}


@pytest.mark.parametrize(("web", "reason"), UNCHECKED.values(), ids=UNCHECKED.keys())
def test_one_that_nobody_checks_deserves_a_look(web: dict[str, Any], reason: str) -> None:
    def warnings(**words: Any) -> list[str]:
        given_ = pillar(**words)
        del given_["lvs"]["real_servers"]["rs2"]
        del given_["lvs"]["real_servers"]["rs6"]
        del given_["lvs"]["real_servers"]["off"]
        return list(model.judge(given_, "lb1")["warnings"])

    assert warnings(**web) == [
        f"{WEB}: its real servers are not checked: {reason}; give it check:port, or types: [exec] "
        "with a command"
    ]
    assert warnings(**web, check={"port": 53}) == []
    assert warnings(**web, check=types("exec", command="/bin/true")) == []
    assert warnings(**web, check=types()) == []


def test_public_names_are_told_about() -> None:
    for module in (checksets, checkwords):
        for name, value in vars(module).items():
            mine = getattr(value, "__module__", "") == module.__name__
            assert name.startswith("_") or not mine or value.__doc__, name
